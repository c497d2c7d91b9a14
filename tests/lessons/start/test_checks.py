"""The checks of lesson 00 say right to right answers, and give a hint for the usual wrong ones."""

import pytest
import torch

from tutorial_utils import load_model
from tutorial_utils.lessons.checks import check_my_prompt, check_weights_gib


@pytest.fixture(scope="module")
def shipped():
    return load_model("pocket-llama", device="cpu")


@pytest.mark.parametrize(
    ("prompt", "verdict"),
    [
        ("Anna lives in Rome. Anna lives in", "Right: "),
        ("The capital of Italy is", "Right: "),
        (..., "Not tried yet: "),
        ("The capital of France is", "begin to say it again"),
        ("The capital of Italy is ", "ends with a space"),
        ("", "is empty"),
        ("Rome " * 400, "too long"),
        (3, "put it in quotes"),
    ],
)
def test_my_prompt(capsys, shipped, prompt, verdict):
    check_my_prompt(prompt, *shipped)
    assert verdict in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (lambda parameters, dtype: parameters * dtype.itemsize / 2**30, "Right: "),
        (lambda parameters, dtype: ..., "Not tried yet: "),
        (lambda parameters, dtype: parameters * dtype.itemsize / 1e9, "a GiB is 2**30"),
        (lambda parameters, dtype: parameters * 4 / 2**30, "depends on the dtype"),
        (lambda parameters, dtype: torch.zeros(3), "expected a number"),
        (lambda parameters: 1, "raised TypeError"),
    ],
)
def test_weights_gib(capsys, answer, verdict):
    check_weights_gib(answer)
    assert verdict in capsys.readouterr().out
