"""What reviewers found wrong in the lessons, held as it is now: on committed texts and outputs."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch.distributions import Categorical

from notebook_tools import (
    README_PICTURE,
    ROOT,
    code_cells,
    lesson_on,
    picture_of_readme,
    printed,
    read,
)
from tutorial_utils import next_token_logits
from tutorial_utils.lessons.checks import check_entropies
from tutorial_utils.lessons.real import read_result


def text_of(subject: str) -> str:
    cells = read(lesson_on(subject)).cells
    return " ".join(" ".join(c.source for c in cells if c.cell_type == "markdown").split())


def test_the_readme_shows_the_figure_of_the_first_lesson():
    picture, description = picture_of_readme(read(lesson_on("start here")))
    assert README_PICTURE.read_bytes() == picture
    assert f"![{description}](docs/first-lesson.png)" in (ROOT / "README.md").read_text("utf-8")


def test_an_entropy_near_that_of_a_fair_die_does_not_make_the_die_fair(pocket, capsys):
    """Here the six faces have less than a fair die's entropy, and the other tokens add the rest."""
    logits = next_token_logits(*pocket, "The die shows")[0]
    faces = logits.softmax(dim=-1).topk(6).values
    six = Categorical(probs=faces).entropy() / math.log(2)
    bits = [Categorical(logits=logits / T).entropy().item() / math.log(2) for T in (0.5, 1, 2)]
    assert six < math.log2(6) < bits[1] < math.log2(6) + 0.2
    check_entropies(bits, logits)
    for said in (capsys.readouterr().out, text_of("logits and softmax")):
        assert "does not mean that the die is fair" in " ".join(said.split())


def test_before_the_first_sentence_only_the_company_cannot_be_known():
    text = text_of("logits and softmax")
    shown = printed(code_cells(read(lesson_on("logits and softmax"))))
    assert "no model can know the company there. But a model can guess other tokens." in text
    table = re.findall(r"^ +(\d+) .* (yes|no)$", shown, re.M)
    first = [verdict for place, verdict in table if int(place) < 6]
    assert first.count("yes") == 4 and first[3] == "no"  # the company


def test_the_spaced_spelling_is_near_for_fewer_than_half_of_the_words_here():
    shown = printed(code_cells(read(lesson_on("tokenization"))))
    near, words = map(
        int, re.search(r"^for (\d+) of (\d+) words, the nearest", shown, re.M).groups()
    )
    assert near < words / 2
    assert "In the small model, this holds for fewer than half of the words." in text_of(
        "tokenization"
    )


def test_the_figure_of_beam_search_draws_the_winner_by_the_mean():
    cells = code_cells(read(lesson_on("next token decoding")))
    shown, text = printed(cells), text_of("next token decoding")
    sums = dict(re.findall(r"^(greedy|beam search): +sum (-[\d.]+)", shown, re.M))
    best = re.search(r"^its sum is (-[\d.]+);", shown, re.M)[1]
    assert float(sums["beam search"]) < float(sums["greedy"]) < float(best)
    assert "it shows the winner by the mean, which is the text that `generate` returns" in text
    [page] = [
        output.data["text/plain"]
        for cell in cells
        for output in cell.outputs
        if "beam search, best mean ends at" in output.get("data", {}).get("text/plain", "")
    ]
    assert f"beam search, best mean ends at {float(sums['beam search']):.1f} " in page


@pytest.mark.parametrize(
    ("slower", "verdict"), [(3, "slower than"), (1, "about as fast as"), (0.2, "faster than")]
)
def test_the_float16_verdict_is_what_was_measured(slower, verdict):
    """The lesson's own cell, with a clock that makes float16 so many times as slow."""
    [cell] = [c for c in code_cells(read(lesson_on("start here"))) if "pairs = [" in c.source]
    head, found, tail = cell.source.partition("pairs = [")
    names = {"torch": torch}
    exec(head, names)
    names["seconds"] = lambda dtype: slower if dtype == torch.float16 else 1.0
    lines: list[str] = []
    names["print"] = lines.append
    exec(found + tail, names)
    assert lines[0].startswith(f"on this CPU a float16 matrix product takes {slower:.1f} times")
    assert lines[1] == f"so float16 is {verdict} float32 here"


def test_tied_embeddings_are_told(pocket):
    assert pocket[0].config.tie_word_embeddings
    assert "With tied embeddings, as in the shipped model," in text_of("the logit lens")


def test_min_p_and_what_it_drops():
    """At a high temperature it keeps far fewer tokens than top-p, and it drops good ones."""
    shown, text = (
        printed(code_cells(read(lesson_on("next token decoding")))),
        text_of("next token decoding"),
    )
    kept = re.findall(r"^T = [23]\.0 +(?:story|sure) +(\d+) +(\d+)$", shown, re.M)
    assert len(kept) == 4 and all(int(top_p) > 10 * int(min_p) for top_p, min_p in kept)
    [dropped] = re.findall(r"^min-p 0\.1 drops .*$", shown, re.M)
    for word in ("Everybody", "Nobody"):
        assert f"' {word}'" in dropped and f'" {word}"' in text


def test_the_contrast_does_not_say_who_knew():
    text = text_of("contrasting layers dola")
    assert "That does not mean that layer M knew the answer." in text
    for row in ("relative_top", "post_softmax"):
        assert row in text


def test_gpu_hours_count_the_writing():
    """A disk that writes 1 GB/s: the hours are those of whichever is slower."""
    rows = re.findall(
        r"^\| (?:8B|70B) \| [\d,]+ million \| [\d,]+ GB \| ([\d,]+) GB \| ([\d.]+) \| "
        r"([\d.]+) \| ([\d.]+) \|$",
        printed(code_cells(read(lesson_on("many prompts")))),
        re.M,
    )
    assert len(rows) == 4
    for every, gpu_hours, rate, hours in rows:
        size = float(every.replace(",", ""))
        assert float(hours) == pytest.approx(max(float(gpu_hours), size / 3600), abs=0.01)
        if float(gpu_hours) > 1:  # else its two digits are too few
            assert float(rate) == pytest.approx(size / float(gpu_hours) / 3600, rel=0.02)


def test_the_outcome_of_removing_the_mood_is_shown():
    shown, text = (
        printed(code_cells(read(lesson_on("patching and steering")))),
        text_of("patching and steering"),
    )
    assert "of 60 stories" in shown  # twelve openings, five times
    means = dict(re.findall(r"^(nothing|mood|random directions) +(-?[\d.]+) ± ", shown, re.M))
    assert float(means["mood"]) < float(means["random directions"]) - 1
    told = f"falls from {means['nothing']} to {means['mood']} without the direction"
    assert (
        f"{told}. If random directions are removed instead, it is {means['random directions']}."
        in text
    )


def test_an_ordinary_sentence_surprises_smollm2_less_than_the_artificial_one():
    real = read_result("softmax")
    assert real["ordinary"] < real["perplexity"] / 5 < real["vocabulary"]
