"""The checks of lesson 04 say right to right answers, and give a hint for the usual wrong ones."""

import pytest
import torch

from tutorial_utils.lessons.checks import check_last_real, check_output_of, check_strongest


def right_output_of(model, module, x):
    kept = []
    handle = module.register_forward_hook(lambda module, args, output: kept.append(output))
    try:
        with torch.no_grad():
            model(x)
    finally:
        handle.remove()
    return kept[0][0] if isinstance(kept[0], tuple) else kept[0]


def leaks(model, module, x):
    kept = []
    module.register_forward_hook(lambda module, args, output: kept.append(output))
    with torch.no_grad():
        model(x)
    return kept[0][0] if isinstance(kept[0], tuple) else kept[0]


def leaks_after_an_error(model, module, x):
    kept = []
    handle = module.register_forward_hook(lambda module, args, output: kept.append(output))
    with torch.no_grad():
        model(x)
    handle.remove()
    return kept[0][0] if isinstance(kept[0], tuple) else kept[0]


def drops_the_batch(model, module, x):
    kept = []
    handle = module.register_forward_hook(lambda module, args, output: kept.append(output))
    try:
        model(x)
    finally:
        handle.remove()
    return kept[0][0].detach()


def clears_all_hooks(model, module, x):
    result = leaks(model, module, x)
    module._forward_hooks.clear()
    return result


def swallows(model, module, x):
    try:
        return right_output_of(model, module, x)
    except RuntimeError:
        return x


def keeps_the_graph(model, module, x):
    kept = []
    handle = module.register_forward_hook(lambda module, args, output: kept.append(output))
    try:
        model(x)
    finally:
        handle.remove()
    return kept[0][0] if isinstance(kept[0], tuple) else kept[0]


def test_output_of_right(capsys):
    check_output_of(right_output_of)
    assert capsys.readouterr().out.startswith("Right: ")


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        (leaks, "left behind"),
        (leaks_after_an_error, "a model that raises"),
        (drops_the_batch, "shape"),
        (clears_all_hooks, "somebody else's hook is gone"),
        (swallows, "swallowed"),
        (keeps_the_graph, "autograd graph"),
        (lambda model, module, x: 2 * x, "ran 0 times"),
    ],
)
def test_output_of_wrong(capsys, wrong, found):
    check_output_of(wrong)
    out = capsys.readouterr().out
    assert out.startswith("Not yet: ") and found in out and "Hint: " in out


def last_real(hidden, mask):
    positions = (torch.arange(hidden.shape[1]) * mask).argmax(dim=1)
    return hidden[torch.arange(len(hidden)), positions]


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (last_real, "Right: "),
        (lambda hidden, mask: ..., "Not tried yet: "),
        (lambda hidden, mask: hidden[:, -1], "with padding on the right"),
        (lambda hidden, mask: hidden[:, mask.sum(dim=1) - 1], "index rows and positions"),
        (
            lambda hidden, mask: hidden[torch.arange(len(hidden)), mask.sum(dim=1) - 1],
            "padding on the left",
        ),
        (lambda hidden, mask: None, "is there a `return`"),
        (lambda hidden: hidden, "raised TypeError"),
    ],
)
def test_last_real(capsys, answer, verdict):
    check_last_real(answer)
    assert verdict in capsys.readouterr().out


def test_strongest(capsys):
    # Decoder layer 1 adds most everywhere. Of the others it is layer 4 at the last token, and
    # layer 3 at the first.
    lengths = [[1, 1], [9, 9], [10, 10], [90, 11], [91, 44], [92, 50]]
    activations = {
        i: torch.tensor(row)[None, :, None].expand(1, 2, 3).float() for i, row in enumerate(lengths)
    }
    for answer, verdict in [
        (torch.tensor([3, 4]), "Right: "),
        ([3, 4], "Right: "),
        (torch.tensor([1, 1]), "left out here"),
        (torch.tensor([1, 2]), "2 too low"),
        (torch.tensor([2, 3]), "1 too low"),
        (torch.tensor([3, 5]), "at token 1, decoder layer 5 does not add the most"),
        (torch.tensor([7, 7]), "at token 0"),
        (4, "expected shape (2,), got ()"),
        (torch.tensor([2, 3, 4, 5]), "`dim=0`"),
        (torch.tensor([3.0, 4.0]), "whole numbers"),
        (torch.tensor([True, True]), "whole numbers"),
        ("layer 4", "got str"),
        (..., "Not tried yet"),
    ]:
        check_strongest(answer, activations)
        assert verdict in capsys.readouterr().out
