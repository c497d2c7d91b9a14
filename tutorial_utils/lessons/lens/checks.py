"""Checks of the exercises on the logit lens."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tutorial_utils.draw.described import counted
from tutorial_utils.lessons.exercise import NotYet, as_whole_number, call, exercise, same_tensor


@exercise("tested with the best token, the worst and one in between, at 1 and at 5 layers.")
def check_rank(rank: Callable) -> None:
    """`rank(logits, answer)`: logits (layers, vocab), a token id, to ranks (layers,) from 1.

    No two logits are equal, as sorting, the lesson's own way, may put equal ones in any order.
    """
    torch.manual_seed(0)
    for layers, vocab in ((1, 4), (5, 9)):
        logits = 200 * torch.randn(layers, vocab)  # so far apart that most probabilities are 0
        places = logits.argsort(dim=-1, descending=True)
        for answer in (int(places[0, 0]), int(places[0, -1]), int(places[0, 1])):
            case = f"{counted(layers, 'layer')}, a vocabulary of {vocab} and token {answer}"
            want = (places == answer).int().argmax(dim=-1) + 1
            mistakes = {
                "the first choice has rank 1: nothing is above it, and you count from 1.": want - 1,
                "you counted from the worst; count the tokens with a higher logit.": (
                    vocab + 1 - want
                ),
                "the ranks are right, but give whole numbers: `.long()`.": want,
            }
            hint = "compare each row with that row's own logit of the answer, and count."
            got = call(rank, logits, answer, case=case)
            same_tensor(got, want, case=case, hint=hint, mistakes=mistakes)


@exercise("choices that settle at once, late, at the very end, and ones that leave and come back.")
def check_settled(settled: Callable) -> None:
    """`settled(first_choices)`: of ids (layers,), the first layer from which all equal the last."""
    cases = {
        "the same choice at each layer": ([7, 7, 7], 0),
        "a choice that comes and stays": ([3, 5, 7, 7, 7], 2),
        "a choice that leaves and comes back": ([3, 7, 5, 7, 7], 3),
        "a choice that comes at the last layer": ([7, 7, 7, 2], 3),
        "another choice at the first layer only": ([3, 7, 7], 1),
        "a choice that leaves once, late": ([7, 7, 7, 3, 7], 4),
        "two other choices, each for several layers": ([4, 4, 4, 9, 9, 9, 7, 7], 6),
    }
    for name, (ids, want) in cases.items():
        case = f"{name}, {ids}"
        hints = {"IndexError": "if all layers have the last one's choice, `nonzero` is empty."}
        got = call(settled, torch.tensor(ids), case=case, hints=hints)
        got = as_whole_number(got, case=case, hint="return one layer's number, an int.")
        if got == ids.index(ids[-1]) != want:
            hint = "that is the first layer with this choice. It must also stay."
        else:
            hint = "find the last layer with another choice: the answer is one after it."
        if got != want:
            raise NotYet(f"for {case}, expected {want}, got {got}.", hint)


@exercise("several layers, prompts and tokens, each normalised on its own.")
def check_layer_norm_lens(lens: Callable) -> None:
    """`lens(hidden, weight, bias, unembedding)`: LayerNorm (eps 1e-5) and unembedding by hand."""
    torch.manual_seed(0)
    for shape in ((1, 1, 1, 6), (4, 2, 3, 10)):
        width = shape[-1]
        # The vectors of the first layer are so short that the eps in the root counts.
        size = 10.0 ** (torch.arange(shape[0]) - 2)[:, None, None, None]
        hidden, unembedding = size * (torch.randn(shape) + 1), torch.randn(9, width)
        weight, bias = torch.rand(width) + 0.5, torch.randn(width)
        case = f"hidden of shape {shape}"
        got = call(lens, hidden, weight, bias, unembedding, case=case)
        normed = torch.nn.functional.layer_norm(hidden, (width,), weight, bias)
        mistakes = {
            hint: wrong @ unembedding.T for hint, wrong in _mistakes(hidden, weight, bias).items()
        }
        hint = "mean and variance are over `dim=-1`, with `keepdim=True`."
        same_tensor(got, normed @ unembedding.T, case=case, hint=hint, mistakes=mistakes, atol=1e-4)


def _mistakes(hidden: Tensor, weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
    """What goes into the unembedding after each of the usual mistakes, by the hint for it."""
    centred = hidden - hidden.mean(dim=-1, keepdim=True)
    variance = centred.pow(2).mean(dim=-1, keepdim=True)
    root = (variance + 1e-5).sqrt()
    raw_root = (hidden.pow(2).mean(dim=-1, keepdim=True) + 1e-5).sqrt()
    return {
        "the norm comes before the unembedding.": hidden,
        "subtract the mean of each vector first.": hidden / root * weight + bias,
        "subtract the mean of each vector first, also in the variance.": (
            hidden / raw_root * weight + bias
        ),
        "the scale is that of each layer, not that of the last one.": (
            centred / root[-1:] * weight + bias
        ),
        "divide by the number of dimensions, with `correction=0`, not by one less.": (
            centred / (hidden.var(dim=-1, keepdim=True) + 1e-5).sqrt() * weight + bias
        ),
        "multiply by the weight and add the bias.": centred / root,
        "add the bias too.": centred / root * weight,
        "add 0.00001 to the variance, before you take the root.": (
            centred / (variance.sqrt() + 1e-5) * weight + bias
        ),
        "add 0.00001 to the variance, so that a short vector is not blown up.": (
            centred / variance.sqrt() * weight + bias
        ),
        "divide by the root of the variance, not by the variance.": (
            centred / (variance + 1e-5) * weight + bias
        ),
    }
