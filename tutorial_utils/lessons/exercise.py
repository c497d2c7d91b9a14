"""How an exercise check answers: not tried yet, right, or not yet with a hint.

A check is a function under `@exercise`. It raises `NotTried` or `NotYet`, or returns: then the
answer was right. Only the verdict is printed, so that an exercise never stops a notebook.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch


class NotTried(Exception):
    """The stub was left as it is."""


class NotYet(Exception):
    """The answer is not right: what was found, and a hint."""

    def __init__(self, found: str, hint: str) -> None:
        super().__init__(found)
        self.found, self.hint = found, hint


def exercise(right: str) -> Callable:
    """Print the verdict of the decorated check; `right` says what was checked when all was."""

    def decorate(check: Callable) -> Callable:
        @functools.wraps(check)
        def verdict(*answers: Any) -> None:
            try:
                if any(answer is ... for answer in answers):
                    raise NotTried
                check(*answers)
            except NotTried:
                print("Not tried yet: replace the ... above and run both cells.")
            except NotYet as reason:
                print(f"Not yet: {reason.found}\nHint: {reason.hint}")
            else:
                print(f"Right: {right}")

        return verdict

    return decorate


def call(function: Callable, *args: Any, case: str) -> Any:
    """What the reader's function gives for `args`; an error in it becomes a `NotYet`.

    Tensors among the arguments are checked afterwards: changing one in place is a wrong answer.
    """
    if not callable(function):
        raise NotYet(f"expected a function, got {type(function).__name__}.", "keep the def line.")
    before = [arg.clone() if isinstance(arg, torch.Tensor) else None for arg in args]
    try:
        got = function(*args)
    except Exception as error:
        found = f"for {case} your function raised {type(error).__name__}: {error}"
        raise NotYet(
            found, "call it yourself in a cell of its own, and read the traceback."
        ) from None
    if got is ...:
        raise NotTried
    if got is None:
        raise NotYet(f"for {case} your function returned None.", "is there a `return`?")
    for arg, kept in zip(args, before, strict=True):
        if kept is not None and not torch.equal(arg, kept):
            raise NotYet(f"for {case} your function changed its input in place.", "work on a copy.")
    return got


def same_tensor(got: Any, want: torch.Tensor, *, case: str, hint: str, atol: float = 1e-5) -> None:
    """Raise `NotYet` unless `got` is a tensor of the shape and, within `atol`, values of `want`."""
    if not isinstance(got, torch.Tensor):
        found = (
            f"for {case} expected a tensor of shape {tuple(want.shape)}, got {type(got).__name__}."
        )
        raise NotYet(found, hint)
    if got.shape != want.shape:
        found = f"for {case} expected shape {tuple(want.shape)}, got {tuple(got.shape)}."
        raise NotYet(found, hint)
    close = torch.isclose(got.float(), want.float(), atol=atol, equal_nan=True)
    if not close.all():
        gap = (got.float() - want.float()).abs().nan_to_num(torch.inf).masked_fill(close, -1)
        place = gap.flatten().argmax().item()
        expected, found = want.flatten()[place].item(), got.flatten()[place].item()
        raise NotYet(f"for {case} expected {expected:.4g} at one place, got {found:.4g}.", hint)
