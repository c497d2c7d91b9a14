"""Checks of the exercises on attention heads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from tutorial_utils.lessons.exercise import NotYet, as_whole_number, call, exercise, same_tensor
from tutorial_utils.measures import head_scores


def _pairs(got: Any, case: str) -> list[tuple[int, int]]:
    """An answer as a list of (layer, head) pairs."""
    hint = "return a list of pairs, such as [(2, 3), (2, 0)]."
    if not isinstance(got, (list, tuple, Tensor)):
        raise NotYet(f"for {case}, expected a list, got {type(got).__name__}.", hint)
    found = []
    if isinstance(got, Tensor):
        got = got.tolist() if got.ndim else [got]
    for pair in got:
        pair = pair.tolist() if isinstance(pair, Tensor) else pair
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise NotYet(f"for {case}, {pair!r} is not a pair of a layer and a head.", hint)
        layer, head = (as_whole_number(number, case=case, hint=hint) for number in pair)
        found.append((layer, head))
    return found


def _named(pairs: Sequence[tuple[int, int]]) -> str:
    return ", ".join(f"L{layer}H{head}" for layer, head in pairs) or "none"


@exercise(
    "it finds heads in several layers, averages over the rows, minds where the text begins, and "
    "finds none if there are none."
)
def check_find_induction(find_induction: Callable) -> None:
    """`find_induction(patterns, period, start, threshold)` lists induction heads, best first."""
    # A planted number is the score in a row; in layer 3, (period - 1) / period of it is.
    cases: dict[str, tuple[int, int, float, dict]] = {
        "two heads": (8, 1, 0.4375, {(2, 1): (0.6, 0.6, 0.6), (4, 0): (0.9, 0.8, 0.7),
                                     (2, 3): (0.4375, 0.4375, 0.4375)}),
        "rows that differ": (6, 0, 0.45, {(3, 2): (0.7, 0.7, 0.7), (1, 1): (0.8, 0, 0),
                                          (2, 2): (0.1, 0.65, 0.65), (4, 1): (0, 0.6, 0.6)}),
        "a text from column 2 on": (5, 2, 0.6, {
            (1, 0): (0.65, 0.65, 0.65), (2, 2): (0.9, 0.9, 0.9), (2, 1): (0.8, 0.85, 0.9),
            (4, 1): (0.58, 0.58, 0.58), (3, 0): (0.7, 0.7, 0.7)}),
        "a model without induction heads": (7, 0, 0.4, {}),
    }  # fmt: skip
    for name, (period, start, threshold, planted) in cases.items():
        patterns, case = _patterns(period, start, planted), f"{name} and threshold {threshold}"
        if name == "two heads":
            del patterns[1]  # layers need not begin with 1
        want = _above(patterns, period, start, threshold)
        got = _pairs(call(find_induction, patterns, period, start, threshold, case=case), case)
        if got != want:
            found = f"for {case}, expected {_named(want)}, got {_named(got)}."
            usual = _usual_mistakes(patterns, period, start, threshold)
            raise NotYet(found, _hint(got, want, usual))


def _above(
    patterns: dict[int, Tensor],
    period: int,
    start: int,
    threshold: float,
    over_rows: Callable[[Tensor], Tensor] = lambda scores: scores.mean(dim=0),
) -> list[tuple[int, int]]:
    """The heads with an induction score above the threshold, best first."""
    scores = head_scores(patterns, "induction", period=period, start=start)
    found = [(s, i, h) for i, each in scores.items() for h, s in enumerate(over_rows(each))]
    return [(layer, head) for s, layer, head in sorted(found, reverse=True) if s > threshold]


def _usual_mistakes(
    patterns: dict[int, Tensor], period: int, start: int, threshold: float
) -> dict[str, list[tuple[int, int]]]:
    """What each usual mistake finds, by the hint for it."""
    given = (patterns, period, start, threshold)
    return {
        "the text begins in column `start`: give `head_scores` start=start too.": (
            _above(patterns, period, 0, threshold)
        ),
        "the first word is in column `start`, not after it: give `head_scores` start=start.": (
            _above(patterns, period, start + 1, threshold)
        ),
        "average over all rows (the first axis of each score), not only the first row.": (
            _above(*given, over_rows=lambda scores: scores[0])
        ),
        "average over the rows: take the mean, not the median.": (
            _above(*given, over_rows=lambda scores: scores.median(dim=0).values)
        ),
    }


def _hint(
    got: list[tuple[int, int]],
    want: list[tuple[int, int]],
    usual: dict[str, list[tuple[int, int]]],
) -> str:
    one_off = [(layer - 1, head) for layer, head in want]
    for hint, wrong in usual.items():
        if got == wrong:
            return hint
    if sorted(got) == sorted(want):
        return "sort by score, the highest first."
    if sorted(got) == sorted(one_off) or sorted(got) == sorted((h, i) for i, h in want):
        return "pairs are (layer, head). Layers are the keys of `patterns`; heads count from 0."
    if {*PREVIOUS} & {*got} and not {*want} <= {*got}:
        return 'that is a previous-token head: ask for the score of kind "induction".'
    return "keep the heads whose mean score is above `threshold`; check the period and the start."


PREVIOUS = ((1, 3), (3, 3))  # heads that look one token back, in all made-up patterns


def _patterns(
    period: int, start: int, planted: dict[tuple[int, int], tuple[float, ...]]
) -> dict[int, Tensor]:
    """Patterns of 4 layers on three texts said twice: mostly on column 0, some heads planted.

    In layer 3, the first token that a planted head should look at gets nothing from it. So with a
    `start` that is too high, its score rises, and that of the others stays.
    """
    seq = start + 2 * period
    query = torch.arange(seq)
    patterns = {}
    for layer in range(1, 5):
        pattern = torch.zeros(3, 5, seq, seq)
        pattern[..., 0] = 1.0
        for head in range(5):
            for row in range(3):
                weight = planted.get((layer, head), (0.0, 0.0, 0.0))[row]
                back = period - 1
                if (layer, head) in PREVIOUS:
                    weight, back = 0.9, 1
                looking = query[query - back > start + (layer == 3)]
                pattern[row, head, looking, 0] -= weight
                pattern[row, head, looking, looking - back] += weight
        patterns[layer] = pattern
    return patterns


@exercise("it divides all pieces by the size of the stream, even of a very long or very short one.")
def check_direct(direct: Callable) -> None:
    """`direct(pieces, stream, weight, direction)` is what each piece adds to a logit."""
    torch.manual_seed(0)
    cases = {"a stream of usual length": (1.0, 3, 8), "a long stream": (30.0, 3, 8)}
    cases |= {"a very short stream": (1e-3, 3, 8), "a single piece of size 12": (1.0, 1, 12)}
    for case, (length, count, width) in cases.items():
        sizes = torch.tensor([[1.0], [3.0], [0.5]])[:count]
        pieces = length * torch.randn(count, width) * sizes
        stream, weight = pieces.sum(dim=0) + length * torch.randn(width), torch.rand(width) + 0.5
        direction = torch.randn(width)
        size = (stream.pow(2).mean() + 1e-6).sqrt()
        own = (pieces.pow(2).mean(dim=-1, keepdim=True) + 1e-6).sqrt()
        of_sum = (pieces.sum(0).pow(2).mean() + 1e-6).sqrt()
        terms = pieces / size * weight * direction
        want = terms.sum(dim=-1)
        mistakes = {
            "freeze the scale: divide by the size of `stream`, not by that of each piece.": (
                (pieces / own * weight) @ direction
            ),
            "divide by the size of `stream`: these pieces are only a part of it.": (
                (pieces / of_sum * weight) @ direction
            ),
            "multiply by `weight` too: it belongs to the norm.": (pieces / size) @ direction,
            "divide by the size of the stream, as the norm does.": (pieces * weight) @ direction,
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
        hint = "divide all pieces by the size of the stream, then `* weight` and `@ direction`."
        same_tensor(got, want, case=case, hint=hint, mistakes=mistakes, atol=1e-4)


@exercise(
    "it works if heads share a job, if one head is enough, if no head has to go, and if even all "
    "heads are not enough."
)
def check_break_it(break_it: Callable) -> None:
    """`break_it(loss_without, heads, target)` switches heads off until the loss is high enough."""
    three = {(2, 0): 0.25, (2, 1): 1.0, (3, 2): 0.5, (4, 1): 0.125}  # exact in floats
    # (2, 1) and (3, 2) do the same: the second adds nothing while (4, 1) is there to be read.
    spare = {(2, 1): 1.0, (3, 2): 0.75, (4, 1): 0.25, (1, 0): 0.125}
    mixed = {(2, 0): -0.5, (2, 1): 1.0, (3, 2): 0.25}
    cases: dict[str, tuple[dict, float, frozenset]] = {
        "heads that add up": (three, 2.4, frozenset()),
        "one head that is enough": (three, 1.8, frozenset()),
        "a loss that is exactly the target": (three, 2.5, frozenset()),
        "two heads that do the same": (spare, 2.2, frozenset({(2, 1), (3, 2)})),
        "a loss that is high enough already": (three, 0.5, frozenset()),
        "heads that are not enough, one of which lowers the loss": (mixed, 9.0, frozenset()),
        "no heads": ({}, 2.0, frozenset()),
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
            if (
                same <= off and same
            ):  # of two that do the same, only the one with the higher cost counts
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
        found = f"for {case}, expected {_named(want)}, got {_named(got)}."
        by_cost = sorted(heads, key=lambda head: -costs[head])
        if len({*got}) < len(got):
            hint = "a head that is in the list cannot be added again: try only the others."
        elif sorted(got) == sorted(want):
            hint = "list them in the order in which you added them."
        elif not want:
            hint = "check the loss before you add the first head: it may be high enough already."
        elif same and got == by_cost[: len(got)]:
            hint = "measure each head together with those in the list: loss_without([*gone, head])."
        elif got == want[: len(got)]:
            hint = "go on as long as the loss is below the target and heads are left."
        elif got[: len(want)] == want:
            hint = "stop as soon as the loss reaches the target."
        else:
            hint = "each time add the head that makes the loss highest: `max` with a `key`."
        raise NotYet(found, hint)
