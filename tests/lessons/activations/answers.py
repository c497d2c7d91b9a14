# fmt: off
# ruff: noqa: E402, E731, F811, F821 - as a learner types them

# %% check_strongest(strongest, activations)
from tutorial_utils import residual_changes

# Decoder layer 1 changes the stream most. Of the others, relative to what was there, it is layer 3
# at the first token and layer 4 at the second, where layer 5 adds the longer vector.
lengths = [[1, 1], [9, 9], [10, 10], [90, 15], [91, 60], [92, 150]]
activations = {
    i: torch.tensor([row])[..., None].expand(1, 2, 3) * 1.0 for i, row in enumerate(lengths)
}
change = residual_changes(activations)
stream = torch.stack([layer[0] for layer in activations.values()])
strongest = [3, 4]  #: Right
strongest = torch.tensor([3, 4], dtype=torch.int32)  #: Right
strongest = [torch.tensor(3), torch.tensor(4)]  #: Right
strongest = change.argmax(dim=0) + 1  #: left out here
strongest = change[1:].argmax(dim=1) + 2  #: `dim=0`
strongest = (stream[2:] - stream[1:-1]).norm(dim=-1).argmax(dim=0) + 2  #: `change` does that
strongest = torch.tensor([3, 3])  #: at token 1, decoder layer 3 does not have the largest change
strongest = torch.tensor([7, 7])  #: at token 0
strongest = 4  #: expected shape (2,), got ()
strongest = torch.tensor([3.0, 4.0])  #: whole numbers
strongest = torch.tensor([True, True])  #: whole numbers
strongest = "layer 4"  #: got str

# %% check_output_of(output_of)
from contextlib import contextmanager


@contextmanager
def hooked(module, hook):
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
def run(model, module, x, hook=lambda kept, output: kept.append(output)):
    kept = []
    with torch.no_grad(), hooked(module, lambda module, args, output: hook(kept, output)):
        model(x)
    return kept[0][0] if isinstance(kept[0], tuple) else kept[0]
output_of = run  #: Right
def output_of(model, module, x):  #: left behind
    kept = []
    module.register_forward_hook(lambda m, args, output: kept.append(output))
    with torch.no_grad():
        model(x)
    return kept[0][0] if isinstance(kept[0], tuple) else kept[0]
def output_of(model, module, x):  #: expected shape
    kept = []
    hook = lambda m, args, output: kept.append(output[0])
    handle = module.register_forward_hook(hook)
    try:
        with torch.no_grad():
            model(x)
    finally:
        handle.remove()
    return kept[0]
def output_of(model, module, x):  #: an error in that module, a hook is left behind
    kept = []
    handle = module.register_forward_hook(lambda module, args, output: kept.append(output))
    with torch.no_grad():
        model(x)
    handle.remove()
    return kept[0][0] if isinstance(kept[0], tuple) else kept[0]
def output_of(model, module, x):  #: somebody else's hook is gone
    result = run(model, module, x)
    module._forward_hooks.clear()
    return result
def output_of(model, module, x):  #: in that module, the error was swallowed
    try:
        return run(model, module, x)
    except RuntimeError:
        return x
def output_of(model, module, x):  #: an error later, the error was swallowed
    kept = []
    with hooked(module, lambda module, args, output: kept.append(output)):
        try:
            with torch.no_grad():
                model(x)
        except RuntimeError:
            if not kept:
                raise
    return kept[0][0] if isinstance(kept[0], tuple) else kept[0]
def output_of(model, module, x):  #: the error became IndexError
    kept = []
    with hooked(module, lambda module, args, output: kept.append(output)):
        try:
            with torch.no_grad():
                model(x)
        except RuntimeError:
            pass
    return kept[0][0] if isinstance(kept[0], tuple) else kept[0]
def output_of(model, module, x):  #: that you returned is in the autograd graph
    kept = []
    with hooked(module, lambda module, args, output: kept.append(output)):
        model(x)
    return kept[0][0] if isinstance(kept[0], tuple) else kept[0]
output_of = lambda model, module, x: (model(x), 4 * x)[1]  #: return what the hook gets
output_of = lambda model, module, x: model(x).detach()  #: the output of the whole model
output_of = lambda model, module, x: (run(model, module, x), x)[1]  #: return what the hook gets
output_of = lambda model, module, x: run(model, model.layers[1], x)  #: and a batch of 3
output_of = lambda model, module, x: 2 * x  #: ran 0 times
output_of = lambda model, module, x: module(x).detach()  #: ran 0 times
output_of = lambda model, module, x: (model(x), run(model, module, x))[1]  #: ran 2 times
output_of = lambda model, module, x: (run(model, module, x), module(x))[0]  #: the layer ran 2 times
#: let it return None
output_of = lambda *given: run(*given, lambda kept, output: kept.append(output) or 0 * output)
#: the output of the whole model
output_of = lambda model, module, x: run(model, model.layers[2], x)
def output_of(model, module, x):  #: the input of the module
    kept = []
    with torch.no_grad(), hooked(module, lambda module, args, output: kept.append(args[0])):
        model(x)
    return kept[0]
output_of = lambda model, module, x: (run(model, module, x), None)  #: returned a tuple
def output_of(model, module, x):  #: tuple of one
    kept = []
    with torch.no_grad(), hooked(module, lambda module, args, output: kept.append(output)):
        model(x)
    return kept[0][0] if len(kept[0]) == 2 else kept[0]
def output_of(model, module, x):  #: a KeyError, a hook is left behind
    kept = []
    handle = module.register_forward_hook(lambda module, args, output: kept.append(output))
    try:
        with torch.no_grad():
            model(x)
    except RuntimeError:
        handle.remove()
        raise
    handle.remove()
    return kept[0][0] if isinstance(kept[0], tuple) else kept[0]
def output_of(model, module, x):  #: the error became RuntimeError
    try:
        return run(model, module, x)
    except Exception as error:
        raise RuntimeError(f"the model failed: {error}") from error
def output_of(model, module, x):  #: are still off
    torch.set_grad_enabled(False)
    result = run(model, module, x)
    torch.set_grad_enabled(True)
    return result
def output_of(model, module, x):  #: is in the autograd graph
    kept = []
    model.requires_grad_(False)
    with hooked(module, lambda module, args, output: kept.append(output)):
        model(x)
    return kept[0][0] if isinstance(kept[0], tuple) else kept[0]
output_of = lambda model, module, x: run(model, module, x).tolist()  #: you returned list
output_of = lambda *given: (run(*given), torch.set_grad_enabled(False))[0]  #: are still off

# %% check_last_real(last_real)
rows_of = lambda hidden: torch.arange(len(hidden))
last_real = lambda hidden, mask: torch.stack(  #: Right
    [row[real.nonzero()[-1, 0]] for row, real in zip(hidden, mask)]
)
last_real = lambda hidden, attention_mask: hidden[:, -1]  #: with padding on the right
def last_real(hidden, attention_mask):  #: with padding on the left
    rows = torch.arange(len(hidden))
    return hidden[rows, attention_mask.sum(dim=1) - 1]
last_real = lambda hidden, mask: hidden[:, mask.sum(dim=1) - 1]  #: index rows and positions
last_real = lambda hidden, mask: hidden[:, 0]  #: find each row's last 1
#: find each row's last 1
last_real = lambda hidden, mask: hidden[rows_of(hidden), mask.argmax(dim=1)]
#: with padding on the right
last_real = lambda hidden, mask: hidden[rows_of(hidden), mask.sum(dim=1).max() - 1]
#: for padding on the
last_real = lambda hidden, mask: hidden[:, -1] if mask[0, 0] == 0 else hidden[:, mask[0].sum() - 1]
#: for padding on the
last_real = lambda h, m: h[:, -1] if m[-1, 0] == 0 else h[rows_of(h), m.sum(dim=1) - 1]
last_real = lambda hidden, mask: hidden[mask.bool()]  #: expected shape
last_real = lambda hidden, mask: (hidden * mask[..., None]).sum(dim=1)  #: find each row's last 1
last_real = lambda hidden, mask: right(hidden, mask)[:, None]  #: expected shape
last_real = lambda hidden, mask: right(hidden, mask).flip(0)  #: find each row's last 1
#: for padding on the
last_real = lambda hidden, mask: right(hidden, mask[:1].expand(mask.shape))
