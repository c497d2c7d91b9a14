"""Checks of the exercises of lesson 05."""

from __future__ import annotations

from collections.abc import Callable

import torch

from tutorial_utils.lessons.exercise import NotYet, call, exercise, same_tensor


def _numbers(got: object, want: torch.Tensor, case: str, hint: str) -> None:
    """As `same_tensor`, for whole numbers, and for one that is a Python number."""
    if isinstance(got, (int, float)) and not isinstance(got, bool) and not want.dim():
        got = torch.tensor(got)
    if isinstance(got, torch.Tensor) and (got.dtype == torch.bool or got.is_floating_point()):
        raise NotYet(f"for {case} the numbers are {got.dtype}.", "ranks and layers are counted.")
    same_tensor(got, want, case=case, hint=hint)


@exercise("the best, the worst and one in between, at 1 to 5 layers.")
def check_rank(rank: Callable) -> None:
    """`rank(logits, answer)`: logits (layers, vocab), a token id, to ranks (layers,) from 1."""
    torch.manual_seed(0)
    for layers, vocab in ((1, 4), (5, 9)):
        logits = torch.randn(layers, vocab)
        places = logits.argsort(dim=-1, descending=True)
        for answer in (int(places[0, 0]), int(places[0, -1]), int(places[0, 1])):
            case = f"{layers} layers, a vocabulary of {vocab} and token {answer}"
            want = (places == answer).int().argmax(dim=-1) + 1
            got = call(rank, logits, answer, case=case)
            if isinstance(got, torch.Tensor) and torch.equal(got.long(), want - 1):
                hint = "the first choice has rank 1: nothing is above it, and you count from 1."
            elif isinstance(got, torch.Tensor) and torch.equal(got.long(), vocab + 1 - want):
                hint = "you counted from the worst; count the tokens with a higher logit."
            else:
                hint = "compare each row with that row's own logit of the answer, and count."
            _numbers(got, want, case, hint)


@exercise("choices that settle at once, late, at the very end, and ones that leave and come back.")
def check_settled(settled: Callable) -> None:
    """`settled(first_choices)`: ids (layers,) to the layer from which they stay the last one."""
    cases = {
        "the same choice at each layer": ([7, 7, 7], 0),
        "a choice that comes and stays": ([3, 5, 7, 7, 7], 2),
        "a choice that leaves and comes back": ([3, 7, 5, 7, 7], 3),
        "a choice that comes at the last layer": ([7, 7, 7, 2], 3),
        "a choice that leaves once, late": ([7, 7, 7, 3, 7], 4),
    }
    for case, (ids, want) in cases.items():
        got = call(settled, torch.tensor(ids), case=f"{case}, {ids},")
        value = got.item() if isinstance(got, torch.Tensor) and got.numel() == 1 else got
        if isinstance(value, int) and value == ids.index(ids[-1]) != want:
            hint = "that is where it is first choice first. It must also stay."
        else:
            hint = "find the last layer whose choice is another one: settled is one after it."
        _numbers(value, torch.tensor(want), f"{case}, {ids},", hint)


@exercise("several layers, prompts and tokens, each normalised on its own.")
def check_layer_norm_lens(lens: Callable) -> None:
    """`lens(hidden, weight, bias, unembedding)`: LayerNorm (eps 1e-5) and unembedding by hand."""
    torch.manual_seed(0)
    for shape in ((1, 1, 1, 6), (4, 2, 3, 6)):
        size = 10.0 ** torch.arange(shape[0])[:, None, None, None]
        hidden, unembedding = torch.randn(shape) * size + 1, torch.randn(9, 6)
        weight, bias = torch.rand(6) + 0.5, torch.randn(6)
        case = f"hidden of shape {shape}"
        got = call(lens, hidden, weight, bias, unembedding, case=case)
        norm = torch.nn.functional.layer_norm
        want = norm(hidden, (6,), weight, bias) @ unembedding.T
        same_tensor(got, want, case=case, hint=_norm_hint(got, hidden, weight, bias, unembedding))


def _norm_hint(got, hidden, weight, bias, unembedding) -> str:
    centred = hidden - hidden.mean(dim=-1, keepdim=True)
    variance = centred.pow(2).mean(dim=-1, keepdim=True) + 1e-5
    mistakes = {
        "the norm comes before the unembedding.": hidden,
        "subtract the mean of each vector first.": hidden / variance.sqrt() * weight + bias,
        "the scale is that of each layer, not that of the last one.": (
            centred / variance[-1:].sqrt() * weight + bias
        ),
        "divide by the number of dimensions, with `correction=0`, not by one less.": (
            centred / (hidden.var(dim=-1, keepdim=True) + 1e-5).sqrt() * weight + bias
        ),
        "multiply by the weight and add the bias.": centred / variance.sqrt(),
        "add the bias too.": centred / variance.sqrt() * weight,
    }
    for hint, normed in mistakes.items():
        other = normed @ unembedding.T
        if isinstance(got, torch.Tensor) and got.shape == other.shape:
            if torch.allclose(got.float(), other, atol=1e-5):
                return hint
    return "mean and variance are over `dim=-1`, with `keepdim=True`."
