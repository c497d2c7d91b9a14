"""What a lesson's text says of SmolLM2 in numbers is what its stored result says."""

from __future__ import annotations

import pytest
import torch

from notebook_tools import lesson_on, read
from tutorial_utils.lessons.real import read_result

Result = dict


def decoding(r: Result) -> list[str]:
    surest, least = r["kept"].values()
    return [
        f"At none of the steps does greedy's token get more than {0.9:g}; "
        f"the highest bar is {max(r['probs']):.2f}.",
        f"top-p needs {surest['top-p 0.9']} tokens to reach 0.9.",
        f"top-p needs {least['top-p 0.9']} tokens to reach 0.9. "
        f"Min-p keeps {least['min-p 0.2']} tokens",
    ]


def activations(r: Result) -> list[str]:
    ratio = torch.tensor(r["first token"])
    long = (ratio > 20).nonzero()[:, 0] + 1
    few = r["four bits"]["cosine"][5::5]
    assert min(few) > 0.97 and ratio[9] < 2 < ratio[8:].max()
    return [
        f"From layer {long.min()} to layer {long.max()} of SmolLM2 the first token's vector is",
        "is short again at layer 10",
        f"first choice had a probability of only {r['best']:.3f}.",
    ]


def layer(r: Result) -> list[str]:
    places = torch.tensor(r["places"])
    at_first = ((places == 0).float().mean(dim=1) > 0.5).sum()
    heads = (places == r["tokens"].index(" McDonald")).nonzero()
    return [
        f'in {at_first} of the {len(places)} layers, most heads look at "Tr"',
        f"Between layers {heads[0, 0] + 1} and {heads[-1, 0] + 1}, "
        f"{['no', 'one', 'two', 'three', 'four', 'five', 'six', 'seven'][len(heads)]} heads look "
        'most at " McDonald"',
    ]


def contrast(r: Result) -> list[str]:
    last_layer, _, contrasted = r["right"]["recall, low"]
    assert contrasted[1] == 0
    for name in ("facts", "new wording"):
        before, after = r["changes"][name]
        for which, new in after.items():
            change = torch.tensor(new) - torch.tensor(before)
            assert 0 < change.mean() < 2 * change.std() / len(change) ** 0.5
            _, (_, masked), (_, right) = r["right"][f"{name}, {which}"]
            assert right < masked
    before, after = r["changes"]["facts"]
    facts = torch.tensor(after["low"]) - torch.tensor(before)
    return [
        f"it is {facts.mean() / facts.std() * len(facts) ** 0.5:.1f} standard errors.",
        f"gets only {last_layer[1]} of the 12 recall prompts right, and none with the low "
        "candidates.",
    ]


def patching(r: Result) -> list[str]:
    controls = r["moods"]["random halves"] + r["moods"]["random directions"]
    _, exact, estimated = r["estimate"]["way"][0]
    assert 0.4 < estimated / exact < 0.6
    assert all(r["verdict"].values())
    assert not any(r["by_words"]["without steering"].values())
    return [
        f"reaches the last token by layer {r['place']}.",
        f"one of their points is at {max(map(abs, controls)):.0f} logit.",
    ]


def heads(r: Result) -> list[str]:
    gain = r["loss"][0][0] - r["loss"][1][0]
    lost = [torch.tensor(r["together"][way][0]).mean() / gain for way in ("0", "mean")]
    assert 0.45 < lost[0] < 0.6 and 0.3 < lost[1] < 0.4
    direct, total = (torch.tensor(r[which]).mean(dim=1) for which in ("direct", "total"))
    at = r["layers"].index(19)  # of the best induction head
    assert r["circuit"][1][0].startswith("L19") and total.argmax() == direct.argmax()
    assert 0.3 < total[at] < 0.4 and total.argsort()[-2] == at and direct[at] < total[at] / 5
    return [
        f"the loss was {gain:.1f} nats lower on the repeated words",
        f"Layer {r['layers'][direct.argmax()]} writes most,",
    ]


def harvest(r: Result) -> list[str]:
    right = [i for i, share in enumerate(r["new"]) if share == 1]
    assert right == [*range(right[0], right[-1] + 1)] and min(r["by heart"][1:]) > 0.8
    return [f"From layer {right[0]} to layer {right[-1]}, the probe is right on all new sentences"]


SUBJECTS = {
    "decoding": "next token decoding",
    "activations": "hooks",
    "layer": "inside a decoder layer",
    "contrast": "contrasting layers dola",
    "patching": "patching and steering",
    "heads": "attention heads",
    "harvest": "many prompts many devices",
}


@pytest.mark.parametrize("topic", SUBJECTS)
def test_the_text_quotes_the_stored_result(topic):
    cells = [c.source for c in read(lesson_on(SUBJECTS[topic])).cells if c.cell_type == "markdown"]
    text = " ".join(" ".join(cells).split())
    for sentence in globals()[topic](read_result(topic)):
        assert sentence in text, sentence
