"""Checks of the exercises on attention heads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from tutorial_utils.lessons.exercise import NotYet, as_whole_number, call, exercise, same_tensor


def _pairs(got: Any, case: str) -> list[tuple[int, int]]:
    """An answer as a list of (layer, head) pairs."""
    hint = "return a list of pairs, such as [(2, 3), (2, 0)]."
    if not isinstance(got, (list, tuple, Tensor)):
        raise NotYet(f"for {case} expected a list, got {type(got).__name__}.", hint)
    found = []
    for pair in got:
        if not isinstance(pair, (list, tuple, Tensor)) or len(pair) != 2:
            raise NotYet(f"for {case} {pair!r} is not a pair of a layer and a head.", hint)
        layer, head = (as_whole_number(number, case=case, hint=hint) for number in pair)
        found.append((layer, head))
    return found


def _named(pairs: Sequence[tuple[int, int]]) -> str:
    return ", ".join(f"L{layer}H{head}" for layer, head in pairs) or "none"


@exercise("heads of several layers, over all rows, the best first, and none where there is none.")
def check_find_induction(find_induction: Callable) -> None:
    """`find_induction(patterns, period, start, least)` lists induction heads, best first."""
    cases = {
        "two heads": (8, 1, {(2, 1): (0.6, 0.6), (4, 0): (0.9, 0.8), (2, 3): (0.5, 0.5)}),
        "a head that is one in the first row only": (6, 0, {(3, 2): (0.7, 0.7), (1, 1): (0.8, 0)}),
        "another period, three heads": (5, 1, {(1, 0): (0.6, 0.7), (2, 2): (0.9, 0.9),
                                               (2, 1): (0.8, 0.7)}),
        "a model without any": (7, 0, {}),
    }  # fmt: skip
    for case, (period, start, planted) in cases.items():
        patterns = _patterns(period, start, planted)
        got = _pairs(call(find_induction, patterns, period, start, 0.5, case=case), case)
        means = {head: sum(each) / 2 for head, each in planted.items()}
        want = sorted((h for h in means if means[h] > 0.5), key=lambda h: -means[h])
        if got == want:
            continue
        found = f"for {case} expected {_named(want)}, got {_named(got)}."
        first = [h for h in planted if planted[h][0] > 0.5]
        one_off = [(layer - 1, head) for layer, head in want]
        if sorted(got) == sorted(want):
            hint = "sort by score, the highest first."
        elif sorted(got) == sorted(one_off) or sorted(got) == sorted((h, i) for i, h in want):
            hint = (
                "pairs are (layer, head): layers as the keys of `patterns`, from 1; heads from 0."
            )
        elif first != want and sorted(got) == sorted(first):
            hint = "average over the rows, the first axis of each score, not the first row alone."
        elif {*PREVIOUS} & {*got} and not {*want} <= {*got}:
            hint = 'that is a previous-token head: ask for the score of kind "induction".'
        else:
            hint = "keep the heads whose mean over rows is above `least`, and check the period."
        raise NotYet(found, hint)


PREVIOUS = ((1, 3), (3, 3))  # heads that look one token back, in all made-up patterns


def _patterns(
    period: int, start: int, planted: dict[tuple[int, int], tuple[float, float]]
) -> dict[int, Tensor]:
    """Patterns of 4 layers on text said twice: mostly on the first token, some heads planted."""
    seq = start + 2 * period
    query = torch.arange(seq)
    patterns = {}
    for layer in range(1, 5):
        pattern = torch.zeros(2, 4, seq, seq)
        pattern[..., 0] = 1.0
        for head in range(4):
            for row in range(2):
                weight = planted.get((layer, head), (0.0, 0.0))[row]
                back = period - 1
                if (layer, head) in PREVIOUS:
                    weight, back = 0.9, 1
                looking = query[query - back > start]
                pattern[row, head, looking, 0] -= weight
                pattern[row, head, looking, looking - back] += weight
        patterns[layer] = pattern
    return patterns


@exercise("several pieces, a long stream, a short one: the scale is the stream's, and they add up.")
def check_direct(direct: Callable) -> None:
    """`direct(pieces, stream, weight, direction)` is what each piece adds to a logit."""
    torch.manual_seed(0)
    for case, length in {"a stream of usual length": 1.0, "a long stream": 30.0,
                         "a very short stream": 1e-3}.items():  # fmt: skip
        pieces = length * torch.randn(3, 8) * torch.tensor([[1.0], [3.0], [0.5]])
        stream, weight = pieces.sum(dim=0) + length * torch.randn(8), torch.rand(8) + 0.5
        direction = torch.randn(8)
        size = (stream.pow(2).mean() + 1e-6).sqrt()
        own = (pieces.pow(2).mean(dim=-1, keepdim=True) + 1e-6).sqrt()
        of_sum = (pieces.sum(0).pow(2).mean() + 1e-6).sqrt()
        terms = pieces / size * weight * direction
        want = terms.sum(dim=-1)
        mistakes = {
            "freeze the scale: divide by the size of `stream`, not by that of each piece.": (
                (pieces / own * weight) @ direction
            ),
            "divide by the size of `stream`: these pieces are only some of it.": (
                (pieces / of_sum * weight) @ direction
            ),
            "multiply by `weight` too: it belongs to the norm.": (pieces / size) @ direction,
            "divide by the size of the stream: the norm does it.": (pieces * weight) @ direction,
            "add up over the coordinates: each piece gives one number.": terms,
            "each piece gives a number of its own: do not add the pieces up.": want.sum(),
            "divide by the root of the mean square, not by the length.": (
                (pieces / (stream.pow(2).sum() + 1e-6).sqrt() * weight) @ direction
            ),
            "put 1e-6 under the root.": (
                (pieces / (stream.pow(2).mean().sqrt() + 1e-6) * weight) @ direction
            ),
            "take the root of the mean square.": (
                (pieces / (stream.pow(2).mean() + 1e-6) * weight) @ direction
            ),
        }
        got = call(direct, pieces, stream, weight, direction, case=case)
        hint = "divide all pieces by the one size of the stream, times weight, @ direction."
        same_tensor(got, want, case=case, hint=hint, mistakes=mistakes, atol=1e-4)


@exercise(
    "heads that stand in for each other, one that is enough, none needed, and all not enough."
)
def check_break_it(break_it: Callable) -> None:
    """`break_it(loss_without, heads, target)` switches heads off, dearest first, up to a loss."""
    three = {(2, 0): 0.25, (2, 1): 1.0, (3, 2): 0.5, (4, 1): 0.125}  # exact in floats
    # (2, 1) and (3, 2) do the same: the second adds nothing while (4, 1) is there to be read.
    spare = {(2, 1): 1.0, (3, 2): 0.75, (4, 1): 0.25, (1, 0): 0.125}
    cases: dict[str, tuple[dict, float, frozenset]] = {
        "heads that add up": (three, 2.4, frozenset()),
        "one head that is enough": (three, 1.8, frozenset()),
        "a loss that is exactly the target": (three, 2.5, frozenset()),
        "two heads that do the same": (spare, 2.2, frozenset({(2, 1), (3, 2)})),
        "a loss that is high enough already": (three, 0.5, frozenset()),
        "heads that are not enough": (three, 9.0, frozenset()),
    }
    for case, (costs, target, same) in cases.items():
        calls: list[int] = []

        def loss_without(
            gone: Sequence, costs: dict = costs, same: frozenset = same, calls: list = calls
        ) -> float:
            calls.append(len(gone))
            if len(calls) > 200:
                raise RuntimeError("loss_without was called 200 times: does the loop end?")
            off = {(int(layer), int(head)) for layer, head in gone}
            if same <= off and same:  # of two that do the same only the dearer counts
                off -= {min(same, key=lambda head: costs[head])}
            return 1.0 + sum(costs.get(head, 0.0) for head in off)

        heads = sorted(costs)
        want: list[tuple[int, int]] = []
        while loss_without(want) < target and len(want) < len(heads):
            left = [head for head in heads if head not in want]
            want.append(max(left, key=lambda head: loss_without([*want, head])))
        got = _pairs(call(break_it, loss_without, heads, target, case=case), case)
        if got == want:
            continue
        found = f"for {case} expected {_named(want)}, got {_named(got)}."
        by_cost = sorted(heads, key=lambda head: -costs[head])
        if len({*got}) < len(got):
            hint = "a head that is gone cannot be taken again: leave it out of those to try."
        elif sorted(got) == sorted(want):
            hint = "list them in the order in which you took them."
        elif not want:
            hint = "measure before you take the first: the loss may be high enough already."
        elif same and got == by_cost[: len(got)]:
            hint = (
                "measure each head together with those that are gone: loss_without([*gone, head])."
            )
        elif got == want[: len(got)]:
            hint = "go on as long as the loss is below the target and heads are left."
        elif got[: len(want)] == want:
            hint = "stop as soon as the loss is at the target."
        else:
            hint = "each time take the head with which the loss is highest: max with a key."
        raise NotYet(found, hint)
