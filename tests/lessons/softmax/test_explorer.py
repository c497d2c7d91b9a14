"""The softmax explorer: what temperature and filters leave, in words and in bars."""

from __future__ import annotations

import math
import re

import pytest
import torch

from explorer_parts import find, rows_of, shown
from tutorial_utils import next_token_logits
from tutorial_utils.lessons.softmax.explorer import (
    choice_html,
    explore_softmax,
    filtered_choice,
    tell_choice,
)

LOGITS = torch.tensor([4.0, 3.0, 2.0, 1.0, 0.0]).log()
PROMPT = "Anna has the red ball."


def test_no_filter_keeps_all():
    choice = filtered_choice(LOGITS)
    assert choice.kept.tolist() == [True, True, True, True, False]  # the last has a logit of -inf
    assert choice.mass == pytest.approx(1)
    assert torch.allclose(choice.probs, torch.tensor([0.4, 0.3, 0.2, 0.1, 0.0]))
    expected = -sum(p * math.log2(p) for p in (0.4, 0.3, 0.2, 0.1))
    assert choice.bits == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("settings", "kept", "mass"),
    [
        ({"top_k": 2}, 2, 0.7),
        ({"top_p": 0.65}, 2, 0.7),
        ({"min_p": 0.5}, 3, 0.9),
        ({"top_k": 1}, 1, 0.4),
        ({"temperature": 0.5, "top_k": 2}, 2, 25 / 30),
    ],
)
def test_kept_mass_is_of_the_distribution_before_the_cut(settings, kept, mass):
    choice = filtered_choice(LOGITS, **settings)
    assert int(choice.kept.sum()) == kept
    assert choice.mass == pytest.approx(mass, abs=1e-5)
    assert choice.probs.sum().item() == pytest.approx(1)
    assert choice.bits <= math.log2(kept) + 1e-6


def test_a_choice_says_what_is_wrong():
    with pytest.raises(ValueError, match=r"one row, \(vocab,\), not \(1, 5\)"):
        filtered_choice(LOGITS[None])
    with pytest.raises(ValueError, match="temperature is 0"):
        filtered_choice(LOGITS, temperature=0)


@pytest.mark.parametrize("row", [[1.0, torch.nan], [1.0, torch.inf], [-torch.inf, -torch.inf]])
def test_logits_that_are_not_finite_are_no_choice(row, tiny):
    broken = torch.tensor(row)
    with pytest.raises(ValueError, match=r'logits are not finite: .*dtype="float32"'):
        filtered_choice(broken)
    explorer = explore_softmax({"good": LOGITS, "broken": broken}, tiny[1])
    with pytest.raises(ValueError, match="not finite"):
        find(explorer, "Prompt").value = "broken"
    assert shown(explorer).strip().startswith("<b>This did not work:</b> the logits are not finite")
    find(explorer, "Prompt").value = "good"
    assert tell_choice(filtered_choice(LOGITS)) in shown(explorer)


def test_bars_say_both_probabilities_and_what_is_dropped():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    choice = filtered_choice(logits, top_k=2)
    html = choice_html(logits.softmax(-1), choice, [" a", "<b>", "c"], torch.tensor([0, 1, 2]))
    assert rows_of(html) == [
        ["␣a", "0.500", "0.625"],
        ["<b>", "0.300", "0.375"],
        ["c", "0.150", "dropped"],
        ["the other 1 token", "0.050", "dropped"],
    ]
    assert re.findall(r"width:([\d.]+)%;background", html)[:2] == ["50.00", "62.50"]


def test_a_kept_token_whose_probability_is_tiny_is_not_dropped():
    choice = filtered_choice(torch.tensor([0.0, -200.0, -300.0]))
    html = choice_html(choice.probs, choice, ["a", "b"], torch.tensor([0, 1]))
    assert "dropped" not in html
    assert html.count("&lt; 0.001") == 4


def test_bars_follow_the_sliders(tiny):
    model, tokenizer = tiny
    rows = {text: next_token_logits(model, tokenizer, text)[0] for text in (PROMPT, "Anna")}
    explorer = explore_softmax(rows, tokenizer)
    at_rest = shown(explorer)
    assert tell_choice(filtered_choice(rows[PROMPT])) in at_rest
    find(explorer, "Temperature").value = 0.5
    find(explorer, "Top-k (0: all)").value = 7
    find(explorer, "Top-p (1: all)").value = 0.8
    find(explorer, "Min-p (0: all)").value = 0.1
    settings = {"temperature": 0.5, "top_k": 7, "top_p": 0.8, "min_p": 0.1}
    assert tell_choice(filtered_choice(rows[PROMPT], **settings)) in shown(explorer)
    find(explorer, "Prompt").value = "Anna"
    assert tell_choice(filtered_choice(rows["Anna"], **settings)) in shown(explorer)
    find(explorer, "Prompt").value = PROMPT
    find(explorer, "Start again").click()
    assert shown(explorer) == at_rest
    with pytest.raises(ValueError, match="there are no logits"):
        explore_softmax({}, tokenizer)
