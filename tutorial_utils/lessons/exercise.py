"""How an exercise check answers: not tried yet, right, or not yet with a hint.

A check is a function under `@exercise`. It raises `NotTried` or `NotYet`, or returns: then the
answer was right. Only the verdict is printed, so that an exercise never stops a notebook.
"""

from __future__ import annotations

import copy
import functools
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from tutorial_utils.lessons.passed import note


class NotTried(Exception):
    """The stub was left as it is."""


class NotYet(Exception):
    """The answer is not right: what was found, and a hint."""

    def __init__(self, found: str, hint: str) -> None:
        super().__init__(found)
        self.found, self.hint = found, hint


def exercise(right: str) -> Callable:
    """Print the verdict of the decorated check; `right` says what was checked if all is right."""

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
                note(check)

        return verdict

    return decorate


def call(function: Callable, *args: Any, case: str, hints: Mapping[str, str] | None = None) -> Any:
    """What the reader's function gives for `args`; an error in it becomes a `NotYet`.

    Tensors, lists and dicts among the arguments are compared afterwards: changing one in place is a
    wrong answer. `hints` has a hint for each word that may occur in an error, or for `None`.
    """
    if not callable(function):
        raise NotYet(f"expected a function, got {type(function).__name__}.", "keep the def line.")
    before = [copy.deepcopy(arg) if isinstance(arg, (Tensor, list, dict)) else None for arg in args]
    try:
        got = function(*args)
    except Exception as error:
        found = f"for {case}, your function raised {type(error).__name__}: {error}"
        hint = "call it yourself in a cell of its own, and read the traceback."
        raise NotYet(found, _pick(hints, found, hint)) from None
    if got is ...:
        raise NotTried
    if got is None:
        found = f"for {case}, your function returned None."
        raise NotYet(found, _pick(hints, found, "is there a `return`?"))
    for arg, kept in zip(args, before, strict=True):
        if kept is not None and not _same(arg, kept):
            found = f"for {case}, your function changed its input in place."
            raise NotYet(found, "work on a copy.")
    return got


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return torch.equal(one, other) if isinstance(one, Tensor) else one == other


def _pick(hints: Mapping[str, str] | None, found: str, otherwise: str) -> str:
    return next((hint for word, hint in (hints or {}).items() if word in found), otherwise)


def as_tensor(got: Any, *, case: str, hint: str = "make it a tensor.") -> Tensor:
    """An answer as a tensor on the CPU. A list, an array or a number is as good as a tensor."""
    try:
        if isinstance(got, (list, tuple)) and any(isinstance(item, Tensor) for item in got):
            got = torch.stack([torch.as_tensor(item).cpu() for item in got])
        return torch.as_tensor(got).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        raise NotYet(f"for {case}, expected a tensor, got {type(got).__name__}.", hint) from None


def as_number(got: Any, *, case: str, hint: str) -> float:
    """An answer as a number: a Python number, or a tensor or array that holds one."""
    try:
        number = float("not a number" if isinstance(got, (bool, str)) else got)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        number = math.nan
    if math.isnan(number):
        raise NotYet(f"for {case}, expected a number, got {_name(got)}.", hint)
    return number


def as_whole_number(got: Any, *, case: str, hint: str) -> int:
    """An answer as an int: a Python int, or a tensor or array that holds one whole number."""
    try:
        if isinstance(got, bool) or getattr(got, "dtype", None) == torch.bool:
            raise TypeError
        return operator.index(got)
    except (TypeError, ValueError):
        found = f"for {case}, expected an int, one whole number, got {_name(got)}."
        raise NotYet(found, hint) from None


def _name(got: Any) -> str:
    """How a message names an answer of the wrong kind."""
    if isinstance(got, Tensor):
        return f"a tensor of shape {tuple(got.shape)} and type {got.dtype}"
    return repr(got) if isinstance(got, (bool, int, float)) else type(got).__name__


def same_tensor(
    got: Any,
    want: Tensor,
    *,
    case: str,
    hint: str,
    mistakes: Mapping[str, Tensor] | None = None,
    atol: float = 1e-5,
) -> None:
    """Raise `NotYet` unless `got` has the shape and, within `atol`, the values of `want`.

    `mistakes` has a hint for each wrong tensor that a usual mistake gives; for all others it is
    `hint`.
    """
    got, want = as_tensor(got, case=case, hint=hint), want.cpu()
    if got.shape == want.shape and _close(got, want, atol).all() and _same_kind(got, want):
        return
    for text, wrong in (mistakes or {}).items():
        if got.shape == wrong.shape and _close(got, wrong.cpu(), atol).all():
            hint = text
            break
    if got.shape != want.shape:
        found = f"for {case}, expected shape {tuple(want.shape)}, got {tuple(got.shape)}."
    elif not _same_kind(got, want):
        kind = "numbers" if want.is_floating_point() else "whole numbers"
        found = f"for {case}, expected {kind}, got {got.dtype}."
    else:
        gap = (got.double() - want.double()).abs().nan_to_num(torch.inf)
        place = int(gap.masked_fill(_close(got, want, atol), -1).flatten().argmax())
        expected, given = want.flatten()[place].item(), got.flatten()[place].item()
        found = f"for {case}, expected {expected:.4g} at one place, got {given:.4g}."
    raise NotYet(found, hint)


def _close(got: Tensor, want: Tensor, atol: float) -> Tensor:
    return torch.isclose(got.double(), want.double(), atol=atol, equal_nan=True)


def _same_kind(got: Tensor, want: Tensor) -> bool:
    """Whether `got` holds numbers, and whole ones where `want` does."""
    if got.dtype == torch.bool or got.is_complex():
        return False
    return want.is_floating_point() or not got.is_floating_point()
