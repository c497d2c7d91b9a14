"""The bars that the lesson's stored results on SmolLM2 are held to."""

from __future__ import annotations

from tutorial_utils.lessons.real import read_result


def test_the_probe_finds_the_mood_of_new_sentences_and_the_control_does_not():
    real = read_result("harvest")
    layer = real["layer"]
    assert layer == real["left out"].index(max(real["left out"]))  # not by the test stories
    assert real["new"][layer] >= 0.9
    assert 0.3 < real["control"][layer] < 0.7
    assert max(real["by heart"]) >= 0.9  # labels that mean nothing, learned by sentence
