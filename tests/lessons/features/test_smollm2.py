"""The bars that the lesson's stored results are held to."""

from __future__ import annotations

from statistics import mean

from tutorial_utils.lessons.features import ATTRIBUTES
from tutorial_utils.lessons.real import read_result


def test_features_of_smollm2_win_for_objects_and_lose_for_moods():
    f1 = read_result("features")["f1"]
    better = {
        name: feature > max(coordinate, random)
        for name, feature, coordinate, random in zip(
            ATTRIBUTES, f1["feature"], f1["coordinate"], f1["random"], strict=True
        )
    }
    assert better["said before"] and better["a liked food"] and better["a capital"]
    assert not better["happy story"] and not better["sad story"] and not better["a name"]
    assert mean(f1["feature"]) > 2 * mean(f1["shuffled"])
    assert mean(f1["probe"]) > mean(f1["feature"]) + 0.1


def test_over_five_seeds_of_the_shipped_model():
    """What the lesson says: the probe is ahead of all, little is found on shuffled weights."""
    for one in read_result("features", "spread"):
        assert all(probe > feature for probe, feature in zip(one["probe"], one["feature"]))
        assert mean(one["feature"]) > mean(one["random"]) > mean(one["shuffled"])
        for name in ("said before", "sad story"):
            i = ATTRIBUTES.index(name)
            assert one["feature"][i] > max(one["coordinate"][i], one["random"][i])
