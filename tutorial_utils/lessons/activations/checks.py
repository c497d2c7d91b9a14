"""Checks of the exercises of lesson 04."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from tutorial_utils.lessons.exercise import NotYet, call, exercise, same_tensor
from tutorial_utils.measures import residual_changes


@exercise("for each token, that decoder layer adds the most.")
def check_strongest(strongest: torch.Tensor, activations: Mapping[int, torch.Tensor]) -> None:
    """`strongest` (seq,) holds the decoder layers, from 2, with the largest relative change."""
    changes = residual_changes(activations)[1:]  # (n - 1, seq)
    want = changes.argmax(dim=0) + 2
    try:
        strongest = torch.as_tensor(strongest).cpu()
    except (TypeError, ValueError, RuntimeError):
        found = f"expected a tensor of shape {tuple(want.shape)}, got {type(strongest).__name__}."
        raise NotYet(found, "`change[1:].argmax(dim=0)` gives a row for each token.") from None
    if strongest.shape != want.shape:
        found = f"expected shape {tuple(want.shape)}, got {tuple(strongest.shape)}."
        hint = "search along the axis of the layers, `dim=0`, once for each token."
        raise NotYet(found, hint)
    if strongest.is_floating_point() or strongest.dtype == torch.bool:
        raise NotYet(f"expected whole numbers, got {strongest.dtype}.", "take the `argmax`.")
    wrong = (strongest != want).nonzero().flatten().tolist()
    if not wrong:
        return
    hint = "`argmax` counts from 0, and row 0 of `change[1:]` belongs to decoder layer 2."
    for low in (1, 2):
        if torch.equal(strongest + low, want):
            raise NotYet(f"each number is {low} too low.", hint)
    if (strongest == 1).any():
        raise NotYet("decoder layer 1 is left out here.", hint)
    found = f"at token {wrong[0]}, decoder layer {strongest[wrong[0]]} does not add the most."
    raise NotYet(found, "take the `argmax` of `change[1:]` along the axis of the layers.")


class _Layer(nn.Module):
    """Doubles its input; gives a tensor or a tuple, or raises."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.weight, self.runs = kind, nn.Parameter(torch.tensor(2.0)), 0

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple:
        self.runs += 1
        if self.kind == "raises":
            raise RuntimeError("the layer broke")
        return (self.weight * x, None) if self.kind == "tuple" else self.weight * x


class _Model(nn.Module):
    """Two layers, one after the other; the first is the one that is asked for."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.first, self.second = _Layer(kind), _Layer("tensor")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.first(x)
        return self.second(out[0] if isinstance(out, tuple) else out)


@exercise("a tensor, a tuple, a batch of 3, an error in the model, and somebody else's hook.")
def check_output_of(output_of: Callable) -> None:
    """`output_of(model, module, x)` gives the module's output and leaves no hook of its own."""
    for kind, batch in (("tensor", 1), ("tensor", 3), ("tuple", 3)):
        case = f"a layer that returns a {kind}, and a batch of {batch}"
        model, x = _Model(kind), torch.randn(batch, 4, 5)
        others = model.first.register_forward_hook(lambda module, args, output: None)
        got = call(output_of, model, model.first, x, case=case)
        if isinstance(got, tuple):
            raise NotYet(f"for {case} you returned a tuple.", "take the first item of a tuple.")
        same_tensor(got, 2 * x, case=case, hint="take [0] of a tuple only, never of a tensor.")
        if got.requires_grad:
            raise NotYet(f"for {case} it is in the autograd graph.", "`no_grad`, or `detach()`.")
        _no_hook_left(model, others.id, case)
        if model.first.runs != 1:
            raise NotYet(f"the model ran {model.first.runs} times.", "run it once.")
    case = "a model that raises an error"
    model = _Model("raises")
    others = model.first.register_forward_hook(lambda module, args, output: None)
    try:
        output_of(model, model.first, torch.randn(1, 4, 5))
    except RuntimeError as error:
        if "the layer broke" not in str(error):
            raise NotYet(f"for {case} another error came: {error}", "let it pass on.") from None
    except Exception as error:
        found = f"for {case} the error became {type(error).__name__}: {error}"
        raise NotYet(found, "use `finally` and not `except`, and return after it.") from None
    else:
        raise NotYet(f"for {case} the error was swallowed.", "use `finally`, not `except`.")
    _no_hook_left(model, others.id, case)


def _no_hook_left(model: _Model, others: int, case: str) -> None:
    hooks = [key for m in model.modules() for key in (*m._forward_hooks, *m._forward_pre_hooks)]
    if others not in hooks:
        raise NotYet(f"for {case} somebody else's hook is gone.", "remove only your own handle.")
    if len(hooks) > 1:
        raise NotYet(f"for {case} a hook is left behind.", "`handle.remove()` in `finally`.")


@exercise("padding on the left, on the right and none, in batches of 1 to 3.")
def check_last_real(last_real: Callable) -> None:
    """`last_real(hidden, attention_mask)` gives the last real token of each row."""
    masks = {
        "no padding": [[1, 1, 1], [1, 1, 1]],
        "padding on the left": [[0, 0, 1, 1], [1, 1, 1, 1], [0, 1, 1, 1]],
        "padding on the right": [[1, 0, 0, 0], [1, 1, 1, 0]],
        "one prompt, padding on the right": [[1, 1, 0]],
    }
    for case, rows in masks.items():
        mask = torch.tensor(rows)
        hidden = torch.randn(*mask.shape, 5)
        last = [max(i for i, real in enumerate(row) if real) for row in rows]
        want = torch.stack([hidden[row, place] for row, place in enumerate(last)])
        got = call(last_real, hidden, mask, case=case)
        if isinstance(got, torch.Tensor) and torch.equal(got, hidden[:, -1]):
            hint = "with padding on the right the last position is not a real token."
        elif isinstance(got, torch.Tensor) and got.shape == (len(rows), len(rows), 5):
            hint = "index rows and positions together: hidden[rows, positions]."
        else:
            hint = "find each row's last 1 in the mask first, and print it."
        same_tensor(got, want, case=case, hint=hint)
