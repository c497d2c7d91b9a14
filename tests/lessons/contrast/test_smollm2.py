"""The bars that the lesson's stored results on SmolLM2 are held to."""

from __future__ import annotations

from tutorial_utils.lessons.real import read_result


def test_without_the_plausible_set_an_impossible_token_wins():
    real = read_result("contrast")
    _, before, contrasted = real["top"]
    assert before < 1e-6 and contrasted > 0.9
    assert real["plausible"] <= 10 < real["vocab"]


def test_the_method_is_tested_there():
    """Mean probabilities below 1: the model is not certain, as the shipped one is."""
    for name, ways in read_result("contrast")["right"].items():
        assert ways[0][0] < 0.9, name
