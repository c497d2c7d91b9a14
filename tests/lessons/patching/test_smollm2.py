"""The bars that the lesson's stored results on SmolLM2 are held to."""

from __future__ import annotations

from tutorial_utils.lessons.real import read_result


def test_bars_of_patching_and_steering():
    real = read_result("patching")
    level, at_place = real["level"], real["at_place"]
    assert real["clear"] >= 4 and at_place["clean run"][0] >= 0.8
    for control in ("another prompt", "another position"):
        assert at_place[control][0] <= level + 0.15
    row = real["share"][real["layers"].index(real["place"])]
    assert row[-1] >= 0.8 and max(row) == row[-1]  # of the first pair, whose map is drawn
    mean = {kind: sum(values) / len(values) for kind, values in real["moods"].items()}
    sides = sorted([mean["towards happy"], -mean["towards sad"]])
    assert sides[0] >= 0.5 and sides[1] >= 1.5
    assert max(map(abs, real["moods"]["random halves"])) < sides[0]
    assert abs(mean["random directions"]) <= 0.6
    for side in ("towards happy", "towards sad"):
        assert sum(real["losses"][side]) / len(real["losses"][side]) <= 1.3
    assert all(real["verdict"].values())


def test_the_estimate_ranks_places_and_misses_large_steps():
    estimate = read_result("patching")["estimate"]
    assert estimate["correlation"] >= 0.9
    ratios = [estimated / exact for _, exact, estimated in estimate["way"]]
    assert ratios == sorted(ratios) and ratios[0] <= 0.6 and ratios[-1] >= 0.9
