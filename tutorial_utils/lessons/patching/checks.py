"""Checks of the exercises on patching and steering."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tutorial_utils.lessons.exercise import NotYet, as_tensor, call, exercise, same_tensor


@exercise("at each layer, that token brings back the most.")
def check_carriers(carriers: Tensor, share: Tensor) -> None:
    """`carriers` (layers,) is the token with the largest share in each row of (layers, seq)."""
    want, layers = share.argmax(dim=1).cpu(), share.argmax(dim=0).cpu()
    hint, case = "take the argmax over the tokens, the second axis: dim=1.", "this figure"
    carriers = as_tensor(carriers, case=case, hint=hint)
    if torch.equal(carriers, layers) and not torch.equal(layers, want):
        raise NotYet("these are layers, one for each token.", hint)
    mistakes = {
        "these are shares: the token's number is the argmax, not max.": share.max(dim=1).values,
        "take the largest share: the smallest means that a patch there brings back least.": (
            share.argmin(dim=1)
        ),
        "take the largest share itself, not the largest without its sign.": (
            share.abs().argmax(dim=1)
        ),
        "the numbers are right: make them whole, with `.long()`.": want,
    }
    same_tensor(carriers, want, case=case, hint=hint, mistakes=mistakes)


@exercise(
    "tested with one row, several rows, the same token for all, and another dtype; nothing is "
    "changed in place."
)
def check_put_at(put_at: Callable) -> None:
    """`put_at(source, positions)` gives an edit: row r takes the source's token positions[r]."""
    torch.manual_seed(0)
    cases = {
        "one row": ([2], torch.float32),
        "a row for each token": ([0, 1, 2, 3], torch.float32),
        "three rows, all at token 1": ([1, 1, 1], torch.float32),
        "a model in bfloat16": ([3, 0], torch.bfloat16),
    }
    for case, (positions, dtype) in cases.items():
        source, hidden = torch.randn(1, 4, 5), torch.randn(len(positions), 4, 5).to(dtype)
        rows, kept = torch.arange(len(positions)), source.clone()
        want, everywhere, shifted = hidden.clone(), hidden.clone(), hidden.clone()
        want[rows, positions] = source[0, positions].to(dtype)
        everywhere[:, positions] = source[:, positions].to(dtype)
        shifted[rows, positions] = source[0, rows].to(dtype)
        edit = call(put_at, source, torch.tensor(positions), case=case)
        if not callable(edit):
            found = f"for {case}, you returned {type(edit).__name__}."
            raise NotYet(found, "return a function: define it inside, and return its name.")
        to_dtype = "`source.to(hidden)` has the dtype and the device of `hidden`."
        for given in (torch.randn(hidden.shape).to(dtype), hidden):  # an edit may run many times
            got = call(edit, given, case=case, hints={"dtype": to_dtype})
        if not isinstance(got, Tensor):
            found = f"for {case}, the function that you returned gave {type(got).__name__}."
            raise NotYet(found, "it gives all of `hidden`, changed: (batch, seq, hidden).")
        if not torch.equal(source, kept):
            raise NotYet(f"for {case}, `source` was changed.", "write into a copy of `hidden`.")
        if torch.equal(got, everywhere) and not torch.equal(got, want):
            hint = "index rows and positions together: new[rows, positions]."
            raise NotYet(f"for {case}, every row took all of the positions.", hint)
        hint = "only token positions[r] of row r changes."
        mistakes = {"row r takes the source's token positions[r], not its token r.": shifted}
        same_tensor(got, want, case=case, hint=hint, mistakes=mistakes)
        if got.dtype != dtype:
            raise NotYet(f"for {case}, the result is {got.dtype}.", to_dtype)


@exercise("the part along the direction is gone, whatever its length, and the rest is as it was.")
def check_without(without: Callable) -> None:
    """`without(hidden, direction)` takes the direction's component out of (batch, seq, hidden)."""
    torch.manual_seed(0)
    for length in (1.0, 3.0, 0.3):
        case = f"a direction of norm {length:g}"
        hidden, direction = torch.randn(2, 3, 8), torch.randn(8)
        unit = direction / direction.norm()
        direction, along = length * unit, (hidden @ unit)[..., None] * unit
        got = call(without, hidden, direction, case=case)
        if isinstance(got, Tensor) and got.shape == hidden.shape:
            for lost in (direction, unit):
                if torch.allclose(got.float(), hidden - lost, atol=1e-5):
                    hint = "subtract each token's own component: (hidden @ unit)[..., None] * unit."
                    raise NotYet(f"for {case}, every token lost the same vector.", hint)
        mistakes = {
            "subtract the component: this adds it once more.": hidden + along,
            "that is the component itself: subtract it from `hidden`.": along,
            "nothing was taken away yet: divide the direction by its norm, then subtract.": hidden,
        }
        hint = "divide the direction by its norm first, then subtract (hidden @ unit) times it."
        same_tensor(got, hidden - along, case=case, hint=hint, mistakes=mistakes)
