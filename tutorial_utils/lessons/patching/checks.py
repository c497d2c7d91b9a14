"""Checks of the exercises of lesson 07."""

from __future__ import annotations

from collections.abc import Callable

import torch

from tutorial_utils.lessons.exercise import NotYet, call, exercise, same_tensor


@exercise("at each layer, that token brings back the most.")
def check_carriers(carriers: torch.Tensor, share: torch.Tensor) -> None:
    """`carriers` (layers,) is the token with the largest share in each row of (layers, seq)."""
    want = share.argmax(dim=1)
    if isinstance(carriers, torch.Tensor) and carriers.shape == share.argmax(dim=0).shape:
        if torch.equal(carriers, share.argmax(dim=0)) and not torch.equal(carriers, want):
            hint = "the token is the second axis: dim=1."
            raise NotYet("these are layers, one for each token.", hint)
    if isinstance(carriers, torch.Tensor) and carriers.is_floating_point():
        raise NotYet("these are shares, and no numbers of tokens.", "argmax, not max.")
    same_tensor(carriers, want, case="this figure", hint="take the argmax over the tokens.")


@exercise("one row, several rows, the same token for all, another dtype, and nothing in place.")
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
        want = torch.stack(
            [
                torch.stack([source[0, t].to(dtype) if t == p else row[t] for t in range(4)])
                for row, p in zip(hidden, positions, strict=True)
            ]
        )
        edit = call(put_at, source, torch.tensor(positions), case=case)
        if not callable(edit):
            found = f"for {case} you returned {type(edit).__name__}."
            raise NotYet(found, "return a function: define it inside, and return its name.")
        got = call(edit, hidden, case=case)
        if isinstance(got, torch.Tensor) and got.shape == want.shape and len(positions) > 1:
            everywhere = hidden.clone()
            everywhere[:, positions] = source[:, positions].to(dtype)
            if torch.equal(got, everywhere) and not torch.equal(got, want):
                hint = "index rows and positions together: new[rows, positions]."
                raise NotYet(f"for {case} every row took all of the positions.", hint)
        same_tensor(got, want, case=case, hint="only token positions[r] of row r changes.")
        if got.dtype != dtype:
            raise NotYet(f"for {case} it is {got.dtype}.", "`source.to(hidden)` fits the dtype.")


@exercise("the part along the direction is gone, whatever its length, and the rest is as it was.")
def check_without(without: Callable) -> None:
    """`without(hidden, direction)` takes the direction's component out of (batch, seq, hidden)."""
    torch.manual_seed(0)
    for case, length in {"a direction of norm 1": 1.0, "a direction of norm 3": 3.0}.items():
        hidden, direction = torch.randn(2, 3, 8), torch.randn(8)
        direction = length * direction / direction.norm()
        unit = direction / direction.norm()
        want = hidden - (hidden @ unit)[..., None] * unit
        got = call(without, hidden, direction, case=case)
        hint = "divide the direction by its norm first, then subtract (hidden @ unit) times it."
        if isinstance(got, torch.Tensor) and got.shape == want.shape:
            if torch.allclose(got, hidden - direction, atol=1e-5):
                hint = "subtract each token's own component: (hidden @ unit)[..., None] * unit."
                raise NotYet(f"for {case} every token lost the same vector.", hint)
        same_tensor(got, want, case=case, hint=hint)
