"""The checks of lesson 05 say right to right answers, and give a hint for the usual wrong ones."""

import pytest
import torch

from tutorial_utils.lessons.checks import check_layer_norm_lens, check_rank, check_settled


def rank(logits, answer):
    return (logits > logits[:, [answer]]).sum(dim=-1) + 1


def settled(choices):
    others = (choices != choices[-1]).nonzero()
    return int(others[-1]) + 1 if len(others) else 0


def settled_by_walking(choices):
    layer = len(choices) - 1
    while layer and choices[layer - 1] == choices[-1]:
        layer -= 1
    return torch.tensor(layer)


def lens(hidden, weight, bias, unembedding, correction=0):
    mean = hidden.mean(dim=-1, keepdim=True)
    variance = hidden.var(dim=-1, keepdim=True, correction=correction)
    return ((hidden - mean) / (variance + 1e-5).sqrt() * weight + bias) @ unembedding.T


def library(hidden, weight, bias, unembedding):
    return torch.nn.functional.layer_norm(hidden, hidden.shape[-1:], weight, bias) @ unembedding.T


def last_scale(hidden, weight, bias, unembedding):
    centred = hidden - hidden.mean(dim=-1, keepdim=True)
    scale = (centred[-1:].pow(2).mean(dim=-1, keepdim=True) + 1e-5).sqrt()
    return (centred / scale * weight + bias) @ unembedding.T


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (check_rank, rank),
        (
            check_rank,
            lambda z, answer: z.argsort(-1, descending=True).eq(answer).nonzero()[:, 1] + 1,
        ),
        (check_settled, settled),
        (check_settled, settled_by_walking),
        (check_layer_norm_lens, lens),
        (check_layer_norm_lens, library),
    ],
)
def test_right_answers(capsys, check, answer):
    check(answer)
    assert capsys.readouterr().out.startswith("Right: ")


@pytest.mark.parametrize(
    ("check", "stub"),
    [
        (check_rank, lambda logits, answer: ...),
        (check_settled, lambda choices: ...),
        (check_layer_norm_lens, lambda hidden, weight, bias, unembedding: ...),
    ],
)
def test_stubs(capsys, check, stub):
    check(stub)
    assert capsys.readouterr().out.startswith("Not tried yet: ")


@pytest.mark.parametrize(
    ("check", "answer", "found"),
    [
        (check_rank, lambda z, answer: rank(z, answer) - 1, "you count from 1"),
        (check_rank, lambda z, answer: (z < z[:, [answer]]).sum(-1) + 1, "from the worst"),
        (check_rank, lambda z, answer: (z > z[0, answer]).sum(-1) + 1, "own logit of the answer"),
        (check_rank, lambda z, answer: rank(z, answer).float(), "torch.float32"),
        (check_rank, lambda z, answer: z > z[:, [answer]], "torch.bool"),
        (check_rank, lambda z, answer: rank(z, answer)[0], "expected shape"),
        (check_settled, lambda choices: int((choices == choices[-1]).int().argmax()), "also stay"),
        (check_settled, lambda choices: settled(choices) - 1, "one after it"),
        (check_settled, lambda choices: None, "is there a `return`"),
        (check_settled, lambda choices: choices == choices[-1], "torch.bool"),
        (check_settled, lambda choices: int((choices != choices[-1]).nonzero()[-1]), "raised"),
        (check_layer_norm_lens, lambda h, w, b, u: h @ u.T, "before the unembedding"),
        (check_layer_norm_lens, last_scale, "not that of the last one"),
        (check_layer_norm_lens, lambda *a: lens(*a, correction=1), "correction=0"),
        (check_layer_norm_lens, lambda h, w, b, u: lens(h, w, 0 * b, u), "add the bias too"),
        (check_layer_norm_lens, lambda h, w, b, u: lens(h, 1, 0, u), "multiply by the weight"),
        (check_layer_norm_lens, lambda h, w, b, u: lens(h, w, b, u)[0], "expected shape"),
        (check_layer_norm_lens, lambda h, w, b, u: library(h * h, w, b, u), "over `dim=-1`"),
        (check_layer_norm_lens, 7, "expected a function"),
    ],
)
def test_wrong_answers(capsys, check, answer, found):
    check(answer)
    out = capsys.readouterr().out
    assert out.startswith("Not yet: ") and found in out and "Hint: " in out
