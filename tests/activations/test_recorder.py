"""What is kept of a forward pass, how, and where."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from streams import (
    HIDDEN,
    LAYERS,
    VOCAB,
    assert_same,
    build,
    hidden_states,
    random_ids,
    random_vector,
    record,
    stream,
    with_stream,
)
from tutorial_utils import edit_activations, find_decoder_layers, record_activations


def test_error_inside_the_block_leaves_no_half_record(llama):
    """A pass that broke off does not count as one that the next could continue."""
    ids = random_ids()
    with record_activations(llama) as activations, torch.no_grad():
        with pytest.raises(IndexError):
            llama(torch.full_like(ids, VOCAB + 1))
        llama(ids)
    assert_same(activations, hidden_states(llama, ids))


@pytest.mark.parametrize(
    ("options", "number"),
    [
        ({}, 4 * 2 * 7),
        ({"layers": [1, 2]}, 2 * 2 * 7),
        ({"positions": "last"}, 4 * 2),
        ({"positions": [0, 2, 4]}, 4 * 2 * 3),
        ({"positions": "last", "to": "cpu"}, 4 * 2),
        ({"layers": 0, "to": "cpu"}, 2 * 7),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bytes_kept(model, options, number, dtype):
    """Layers x rows x positions x hidden x bytes per number, and not one more."""
    activations = record(model, dtype=dtype, **options)
    kept = {t.untyped_storage().data_ptr(): t.untyped_storage() for t in activations.values()}
    assert sum(s.nbytes() for s in kept.values()) == number * HIDDEN * dtype.itemsize


def test_layers_are_let_go_when_positions_are_kept(llama):
    """The whole output of a layer dies with the forward pass."""
    outputs = []
    hook = llama.model.layers[1].register_forward_hook(
        lambda module, args, output: outputs.append(weakref.ref(stream(output).untyped_storage()))
    )
    with torch.no_grad(), record_activations(llama, positions="last"):
        llama(random_ids())
    hook.remove()
    gc.collect()
    assert outputs[0]() is None


def test_a_view_does_not_keep_a_bigger_tensor_alive(llama):
    layer = llama.model.layers[0]

    def view(module, args, output):
        return with_stream(output, torch.cat([stream(output)] * 2, 1)[:, :7])

    hook = layer.register_forward_hook(view)
    activations = record(llama, 1)
    hook.remove()
    assert activations[1].untyped_storage().nbytes() == activations[1].nbytes


def test_nothing_is_copied_by_default(llama):
    outputs = []
    hook = llama.model.layers[1].register_forward_hook(lambda *args: outputs.append(args[2]))
    activations = record(llama)
    hook.remove()
    assert activations[2].data_ptr() == stream(outputs[0]).data_ptr()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("options", [{}, {"positions": "last"}, {"to": "cpu"}])
def test_grad_modes(llama, mode, options):
    """What is kept can train a probe afterwards, whatever the model ran under."""
    with mode(), record_activations(llama, 2, **options) as activations:
        llama(random_ids())
    kept = activations[2]
    assert not kept.requires_grad and not kept.is_inference()
    probe = torch.nn.Linear(HIDDEN, 1)
    probe(kept).sum().backward()
    assert probe.weight.grad is not None


@pytest.mark.parametrize("options", [{}, {"positions": "last"}, {"to": "cpu"}])
def test_tensors_stay_in_the_graph_when_asked(llama, options):
    with record_activations(llama, detach=False, **options) as activations:
        loss = llama(random_ids()).logits.sum()
    embedding = llama.model.embed_tokens.weight
    (grad,) = torch.autograd.grad(activations[2].sum(), embedding, retain_graph=True)
    assert grad.abs().sum() > 0
    if not options:  # and the loss reaches the recorded tensor itself
        (grad,) = torch.autograd.grad(loss, activations[2])
        assert grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(model, dtype):
    model = model.to(dtype)
    activations = record(model)
    assert_same(activations, hidden_states(model))
    assert activations[1].dtype is dtype
    activations = record(model, 1, dtype=torch.float32)
    assert torch.equal(activations[1], hidden_states(model)[1].float())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_copies_from_the_gpu(llama):
    llama, ids = build("llama").cuda(), random_ids().cuda()
    expected = hidden_states(llama, ids)[2].cpu()
    with torch.no_grad(), record_activations(llama, to="cpu") as activations:
        llama(ids)
        assert torch.equal(activations[2], expected)
        llama(ids)
    assert activations[2].device.type == "cpu" and activations[2].is_pinned()
    assert torch.equal(activations[2], expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("positions", [None, [0, -1]])
def test_what_the_gpu_changes_in_place_is_copied_before(positions):
    """The copy may be late: the layer's output is zeroed right after it was recorded."""
    llama = build("llama").cuda()
    ids = torch.randint(3, 90, (1024, 96), generator=torch.Generator().manual_seed(0)).cuda()
    expected = hidden_states(llama, ids)[1].cpu()
    expected = expected if positions is None else expected[:, positions]
    for _ in range(20):
        with torch.no_grad(), record_activations(llama, 1, positions=positions, to="cpu") as kept:
            zero = find_decoder_layers(llama)[0].register_forward_hook(lambda *a: a[-1].zero_())
            llama(ids)
            zero.remove()
        assert torch.equal(kept[1], expected)


@pytest.mark.parametrize("last", range(LAYERS + 1))
def test_stop(model, last):
    """Nothing after the last layer asked for is computed, and the block ends there."""
    layers, ran = find_decoder_layers(model), []
    parts = (*layers, model.lm_head)
    hooks = [part.register_forward_hook(lambda m, *_: ran.append(m)) for part in parts]
    with torch.no_grad(), record_activations(model, [last, 0], stop=True) as activations:
        model(random_ids())
        raise AssertionError("what follows the call must not run")
    assert ran == list(layers[:last])
    for hook in hooks:
        hook.remove()
    assert torch.equal(activations[last], hidden_states(model)[last])


def test_stop_inside_another_block(llama):
    """The block that asked for it stops, and only that one."""
    with torch.no_grad(), record_activations(llama) as outer:
        with record_activations(llama, 1, stop=True) as inner:
            llama(random_ids())
        assert inner[1].shape == (2, 7, HIDDEN)
        llama(random_ids())
    assert_same(outer, hidden_states(llama))
    with torch.no_grad(), record_activations(llama, 1, stop=True) as outer:
        with record_activations(llama) as inner:
            llama(random_ids())
        raise AssertionError("the outer block must end")
    assert outer[1].shape == (2, 7, HIDDEN)
    with pytest.raises(KeyError, match="run the model"):
        inner[0]  # that pass was never complete


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing(model, reentrant):
    """A layer runs twice, in the forward and in the backward pass, and is recorded once."""
    ids = random_ids()
    expected = hidden_states(model, ids)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model.train()
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    vector = random_vector()
    grads = []
    for checkpointing in (True, False):
        if not checkpointing:
            model.gradient_checkpointing_disable()
        model.zero_grad()
        edit = edit_activations(model, {3: lambda hidden: hidden + vector})
        with edit, record_activations(model) as activations:
            model(ids, use_cache=False).logits.logsumexp(-1).sum().backward()
        assert_same(activations, [*expected[:3], expected[3] + vector])
        grads.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for with_checkpointing, without in zip(*grads):
        torch.testing.assert_close(with_checkpointing, without)
