"""The checks of lesson 02 say right to right answers, and give a hint for the usual wrong ones."""

import math

import pytest
import torch

from tutorial_utils.lessons.checks import check_ending_bits, check_entropies, check_log_softmax

LOGITS = torch.tensor([2.0, 1.0, 0.5, -1.0, -3.0])
LN2 = math.log(2)


def entropies(*factors, logits=LOGITS):
    return [torch.special.entr((logits * f).softmax(-1)).sum().item() / LN2 for f in factors]


def stable(z):
    z = z - z.max(dim=-1, keepdim=True).values
    return z - z.exp().sum(dim=-1, keepdim=True).log()


def shifted(logits, ids, k):
    rows = logits[-k - 1 : -1].log_softmax(dim=-1)
    return -rows.gather(dim=-1, index=ids[-k:, None])[:, 0] / LN2


def in_place(z):
    z -= z.max(dim=-1, keepdim=True).values
    return z.log_softmax(dim=-1)


@pytest.mark.parametrize(
    ("check", "answers"),
    [
        (check_entropies, (entropies(2, 1, 0.5), LOGITS)),
        (check_entropies, (torch.tensor(entropies(2, 1, 0.5)), LOGITS)),
        (check_entropies, ([torch.tensor(n) for n in entropies(2, 1, 0.5)], LOGITS)),
        (check_entropies, (entropies(2, 1, 0.5), LOGITS.bfloat16())),
        (check_log_softmax, (stable,)),
        (check_log_softmax, (lambda z: torch.log_softmax(z, dim=-1),)),
        (check_ending_bits, (lambda logits, ids, k: shifted(logits, ids, k).sum(),)),
        (check_ending_bits, (lambda logits, ids, k: shifted(logits, ids, k).sum().item(),)),
    ],
)
def test_right_answers(capsys, check, answers):
    check(*answers)
    assert capsys.readouterr().out.startswith("Right: ")


@pytest.mark.parametrize(
    ("check", "answers"),
    [
        (check_entropies, (..., LOGITS)),
        (check_log_softmax, (lambda z: ...,)),
        (check_ending_bits, (lambda logits, ids, k: ...,)),
    ],
)
def test_stubs(capsys, check, answers):
    check(*answers)
    assert capsys.readouterr().out.startswith("Not tried yet")


@pytest.mark.parametrize(
    ("check", "answers", "part"),
    [
        (check_entropies, (1.5, LOGITS), "put them into a list"),
        (check_entropies, (None, LOGITS), "put them into a list"),
        (check_entropies, (entropies(2, 1), LOGITS), "expected shape (3,), got (2,)"),
        (check_entropies, ([n * LN2 for n in entropies(2, 1, 0.5)], LOGITS), "these are nats"),
        (check_entropies, (entropies(0.5, 1, 2), LOGITS), "divide the logits"),
        (check_entropies, ([-n for n in entropies(2, 1, 0.5)], LOGITS), "never below 0"),
        (check_entropies, ([1.0, 2.0, 3.0], LOGITS), "one softmax and one entropy"),
        (check_log_softmax, (lambda z: z.softmax(dim=-1),), "these are probabilities"),
        (check_log_softmax, (lambda z: z.log_softmax(dim=0),), "another axis"),
        (check_log_softmax, (lambda z: z - z.exp().sum(-1, keepdim=True).log(),), "highest logit"),
        (check_log_softmax, (lambda z: z.softmax(-1).log(),), "don't take the logarithm"),
        (check_log_softmax, (in_place,), "changed its input"),
        (check_log_softmax, (None,), "expected a function"),
        (check_ending_bits, (lambda logits, ids, k: shifted(logits, ids, k).mean(),), "average"),
        (check_ending_bits, (lambda logits, ids, k: shifted(logits, ids, k),), "expected shape ()"),
        (check_ending_bits, (lambda logits, ids, k: shifted(logits, ids, k).sum() * LN2,), "nats"),
        (check_ending_bits, (lambda logits, ids, k: -shifted(logits, ids, k).sum(),), "negative"),
        (check_ending_bits, (lambda logits, ids, k: shifted(logits, ids, 5).sum(),), "whole text"),
        (
            check_ending_bits,
            (lambda logits, ids, k: shifted(logits, ids, k + 1).sum(),),
            "one token too many",
        ),
        (
            check_ending_bits,
            (lambda logits, ids, k: -logits.log_softmax(-1)[range(6), ids][-k:].sum() / LN2,),
            "no shift",
        ),
        (check_ending_bits, (lambda logits, ids, k: 0.0,), "compare `predictions`"),
        (check_ending_bits, (lambda logits, ids, k: None,), "is there a `return`"),
        (check_ending_bits, (lambda logits, ids, k: logits[k + 99],), "raised IndexError"),
    ],
)
def test_wrong_answers_get_a_hint(capsys, check, answers, part):
    check(*answers)
    said = capsys.readouterr().out
    assert said.startswith("Not yet: ") and part in said
