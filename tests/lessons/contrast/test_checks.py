"""The checks of lesson 06 say right to right answers, and give a hint for the usual wrong ones."""

import pytest
import torch

from tutorial_utils import contrast_logits, jensen_shannon
from tutorial_utils.lessons.checks import check_contrast_batch, check_picks, check_strength

# Rows are layers 0 to 4. Of the candidates 2 and 4, row 2 is the higher one at the first token.
JSD = torch.tensor(
    [[9.0, 1.0, 9.0], [0.0, 9.0, 0.0], [5.0, 2.0, 1.0], [0.0, 0.0, 0.0], [4.0, 3.0, 2.0]]
)


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (torch.tensor([2, 4, 4]), "Right: "),
        (torch.tensor([0, 1, 1]), "look up the layers' numbers"),
        (torch.tensor([0, 1, 0]), "only the candidates"),
        (torch.tensor([4, 4, 4]), "rows of the candidates first"),
        (torch.tensor([2, 4]), "expected shape (3,)"),
        ([2, 4, 4], "expected a tensor"),
        (..., "Not tried yet: "),
    ],
)
def test_picks(capsys, answer, verdict):
    check_picks(answer, JSD, [2, 4])
    assert verdict in capsys.readouterr().out


def test_places_are_right_where_they_are_the_numbers(capsys):
    check_picks(torch.tensor([0, 1, 0]), JSD, range(2))
    assert "Right: " in capsys.readouterr().out


def right(final, early, alpha):
    mature, premature = final.log_softmax(dim=-1), early.log_softmax(dim=-1)
    picked = jensen_shannon(mature, premature).argmax(dim=0)
    scores = mature - premature[picked, torch.arange(len(final))]
    return scores.masked_fill(mature.exp() < alpha * mature.exp().amax(-1, True), -torch.inf)


def one_layer(final, early, alpha):
    return contrast_logits(final, dict(enumerate(early)), alpha=alpha, batch_average=True).scores


def raw_logits(final, early, alpha):
    picked = jensen_shannon(final, early).argmax(dim=0)
    scores = final - early[picked, torch.arange(len(final))]
    probs = final.softmax(dim=-1)
    return scores.masked_fill(probs < alpha * probs.amax(-1, True), -torch.inf)


def in_place(final, early, alpha):
    final -= 1
    return right(final, early, alpha)


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (right, "Right: "),
        (lambda final, early, alpha: ..., "Not tried yet: "),
        (lambda final, early, alpha: None, "is there a `return`"),
        (one_layer, "each row picks a layer of its own"),
        (lambda final, early, alpha: right(final, early, 0), "at least alpha times the highest"),
        (raw_logits, "log-probabilities, not logits"),
        (lambda *given: right(*given).softmax(dim=-1), "before the softmax"),
        (lambda *given: right(*given)[0], "expected shape"),
        (lambda *given: right(*given) + 1, "compare the picked layers"),
        (in_place, "changed its input"),
        (lambda final: final, "raised TypeError"),
    ],
)
def test_contrast_batch(capsys, answer, verdict):
    check_contrast_batch(answer)
    out = capsys.readouterr().out
    assert verdict in out and ("Not yet: " in out) == (
        verdict not in ("Right: ", "Not tried yet: ")
    )


def contrast_by(final, early, beta, alpha):
    mature = final.log_softmax(dim=-1)
    scores = mature - beta * early.log_softmax(dim=-1)
    return scores.masked_fill(mature.exp() < alpha * mature.exp().max(), -torch.inf)


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (contrast_by, "Right: "),
        (lambda *given: ..., "Not tried yet: "),
        (lambda final, early, beta, alpha: contrast_by(final, early, 1, alpha), "beta multiplies"),
        (lambda final, early, beta, alpha: contrast_by(final, early, beta, 0), "beta multiplies"),
        (
            lambda final, early, beta, alpha: (
                (1 - beta) * final + contrast_by(final, early, beta, 0)
            ),
            "beta multiplies",
        ),
        (lambda final, *others: final / 0 * 0, "there is a NaN"),
        ("text", "expected a function"),
    ],
)
def test_strength(capsys, answer, verdict):
    check_strength(answer)
    assert verdict in capsys.readouterr().out
