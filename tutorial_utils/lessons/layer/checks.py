"""Checks of the exercises on a decoder layer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tutorial_utils.draw.described import counted
from tutorial_utils.lessons.exercise import call, exercise, same_tensor


@exercise("patterns of 1 and of 3 heads, over texts of 2 to 9 tokens.")
def check_previous_score(previous_score: Callable) -> None:
    """`previous_score(pattern)`: mean weight on the token before, (head, query, key): (head,)."""
    torch.manual_seed(0)
    for heads, seq in ((1, 2), (3, 5), (3, 9)):
        pattern = (
            torch.randn(heads, seq, seq).tril().masked_fill(_later(seq), -torch.inf).softmax(-1)
        )
        if seq == 9:
            pattern[:, -1, -2] = 0  # a weight of 0 counts too
        case = f"a pattern of shape {tuple(pattern.shape)}"
        got = call(previous_score, pattern, case=case)
        before = pattern.diagonal(offset=-1, dim1=1, dim2=2)
        own = pattern.diagonal(offset=0, dim1=1, dim2=2)
        two = pattern.diagonal(offset=-2, dim1=1, dim2=2)
        mistakes = {
            "that is each token's weight on itself: go one place to the left, `offset=-1`.": (
                own.mean(dim=-1)
            ),
            "that is the weight on the token after, which the mask hides: `offset=-1`.": (
                pattern.diagonal(offset=1, dim1=1, dim2=2).mean(dim=-1)
            ),
            "that is two places back: `offset=-1`.": two.mean(dim=-1),
            "the first token has none before it: divide by the number of the other tokens.": (
                before.sum(dim=-1) / seq
            ),
            "take the mean over the tokens, not the sum.": before.sum(dim=-1),
            "take the mean over the tokens, not the largest.": before.max(dim=-1).values,
            "one number for each head: take the mean over the tokens only.": before.mean(),
            "take the mean over the tokens that look, with `dim=-1`.": before,
        }
        hint = "`pattern[:, 1:, :-1].diagonal(dim1=1, dim2=2)` has the weights on the token before."
        same_tensor(got, before.mean(dim=-1), case=case, hint=hint, mistakes=mistakes)


@exercise("heads of 2, 4 and 16 numbers, positions that do not begin at 0, and two bases.")
def check_rotate(rotate: Callable) -> None:
    """`rotate(x, positions, base)`: rotary positions as Llama has them, (head, seq, size)."""
    torch.manual_seed(0)
    cases = [(1, [0], 2, 1e4), (2, [0, 1, 2], 4, 1e4), (3, [7, 3, 250, 8], 16, 1e4)]
    for heads, places, size, base in [*cases, (2, [1, 2, 40], 16, 5e5)]:
        x, positions = torch.randn(heads, len(places), size), torch.tensor(places)
        case = f"x of shape {tuple(x.shape)}, positions {places} and base {base:g}"
        got = call(rotate, x, positions, base, case=case)
        half = torch.arange(size // 2)
        angles = positions[:, None] * base ** (-2 * half / size)
        wrong = {
            "turn the other way: a cos - b sin, and b cos + a sin.": _rotated(x, -angles),
            "put number j of the first half together with number j of the second, as Llama does, "
            "and not two neighbours.": _neighbours(x, angles),
            "the angle is the position times base to the power of -2 j / size: mind the 2.": (
                _rotated(x, positions[:, None] * base ** (-half / size))
            ),
            "the power of the base is negative: later pairs turn more slowly.": (
                _rotated(x, positions[:, None] * base ** (2 * half / size))
            ),
            "use the positions that are given, not 0, 1, 2 and so on.": (
                _rotated(x, torch.arange(len(places))[:, None] * base ** (-2 * half / size))
            ),
            "use the base that is given, not 10,000.": (
                _rotated(x, positions[:, None] * 1e4 ** (-2 * half / size))
            ),
            "each pair has an angle of its own.": _rotated(
                x, positions[:, None] * 1.0 * (half > -1)
            ),
            "nothing is turned yet.": x,
        }
        hint = "with a, b the halves of x along the last axis: a cos - b sin, then b cos + a sin."
        same_tensor(got, _rotated(x, angles), case=case, hint=hint, mistakes=wrong, atol=1e-4)


@exercise("one head, four heads with two key-value heads, and six with one; no token looks ahead.")
def check_attend(attend: Callable) -> None:
    """`attend(q, k, v)`: causal attention of grouped heads, (head, seq, size)."""
    torch.manual_seed(0)
    for heads, groups, seq, size in ((1, 1, 1, 2), (6, 2, 5, 8), (6, 1, 4, 4), (4, 4, 3, 2)):
        q = 3 * torch.randn(heads, seq, size)
        k, v = 3 * torch.randn(groups, seq, size), torch.randn(groups, seq, size)
        q[..., 0], k[..., 0] = 20.0, -20.0  # all scores are far below 0, as in real models
        case = f"{counted(heads, 'head')}, {counted(groups, 'key-value head')}, "
        case += f"{counted(seq, 'token')} of size {size}"
        hints = {"size of tensor": "give each key-value head to `heads // kv heads` heads."}
        hints["must match"] = hints["size of tensor"]
        got = call(attend, q, k, v, case=case, hints=hints)
        many = heads // groups
        k_all, v_all = (each.repeat_interleave(many, dim=0) for each in (k, v))
        other = [each.repeat(many, 1, 1) for each in (k, v)]
        scores, scale = q @ k_all.mT, size**-0.5
        ahead, unmasked = _later(seq), (scores * scale).softmax(dim=-1)
        right = (scores * scale).masked_fill(ahead, -torch.inf).softmax(dim=-1)
        mistakes = {
            "heads next to each other share keys and values: `repeat_interleave`, not `repeat`.": (
                (q @ other[0].mT * scale).masked_fill(ahead, -torch.inf).softmax(-1) @ other[1]
            ),
            "a token must not look at later ones: mask them before the softmax.": unmasked @ v_all,
            "mask before the softmax, or the weights do not add up to 1.": (
                unmasked.masked_fill(ahead, 0) @ v_all
            ),
            "a score of 0 is no mask: put minus infinity there.": (
                (scores * scale).masked_fill(ahead, 0).softmax(dim=-1) @ v_all
            ),
            "a token looks at itself too: mask only what comes after it.": (
                (scores * scale).masked_fill(_later(seq, 0), -1e9).softmax(dim=-1) @ v_all
            ),
            "divide the scores by the square root of size.": (
                scores.masked_fill(ahead, -torch.inf).softmax(dim=-1) @ v_all
            ),
            "divide by the square root of size, not by size.": (
                (scores / size).masked_fill(ahead, -torch.inf).softmax(dim=-1) @ v_all
            ),
            "the softmax is over the keys, the last axis.": (
                (scores * scale).masked_fill(ahead, -torch.inf).softmax(dim=-2) @ v_all
            ),
            "these are the weights: multiply them with the values.": right,
        }
        hint = "scores, mask, softmax over the keys, then the weights times the values."
        same_tensor(got, right @ v_all, case=case, hint=hint, mistakes=mistakes, atol=1e-4)


def _later(seq: int, diagonal: int = 1) -> Tensor:
    return torch.ones(seq, seq, dtype=torch.bool).triu(diagonal)


def _rotated(x: Tensor, angles: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def _neighbours(x: Tensor, angles: Tensor) -> Tensor:
    even, odd = x[..., ::2], x[..., 1::2]
    cos, sin = angles.cos(), angles.sin()
    return torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1).flatten(-2)
