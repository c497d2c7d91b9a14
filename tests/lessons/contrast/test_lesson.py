"""What the lesson on DoLa says of the released code and of its own measurement."""

from __future__ import annotations

import re

import pytest

from notebook_tools import code_cells, lesson_on, printed, read


@pytest.fixture(scope="module")
def shown() -> str:
    return printed(code_cells(read(lesson_on("contrasting layers dola"))))


def test_the_released_code_scores_the_same_token_otherwise(shown):
    """No softmax: above 0, so no log-probability. The softmax before the mask: some is lost."""
    found = dict(
        re.findall(r"^(paper|FACTOR|multiple choice): .* gets the score +(-?[\d.]+)$", shown, re.M)
    )
    paper, factor, choice = (float(found[k]) for k in ("paper", "FACTOR", "multiple choice"))
    assert factor < paper - 1 < 0 < choice


def test_four_prompts_give_no_verdict(shown):
    lines = re.findall(r"of (\d+) prompts \((.+)\)$", shown, re.M)
    assert len(lines) == 6
    for prompts, verdict in lines:
        assert (verdict == "too few to tell") == (int(prompts) < 10)
