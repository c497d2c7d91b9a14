"""The code that an explorer shows gives what the explorer shows, wherever its controls stand."""

from __future__ import annotations

import re

import pytest

from explorer_parts import find, inside, rows_of, run_code, shown
from tiny_models import make_llama
from tutorial_utils import (
    encode,
    load_model,
    mean_differences,
    next_token_logits,
    read_activations,
    token_strings,
)
from tutorial_utils.draw.html import number, probability, visible
from tutorial_utils.lessons.activations import explore_activations
from tutorial_utils.lessons.contrast import explore_contrast
from tutorial_utils.lessons.decoding import step_decoding
from tutorial_utils.lessons.explorer import Explorer
from tutorial_utils.lessons.layer import explore_attention
from tutorial_utils.lessons.lens import explore_lens
from tutorial_utils.lessons.patching import explore_patching, explore_steering, steering_table
from tutorial_utils.lessons.softmax import explore_softmax
from tutorial_utils.lessons.tokens import explore_tokens

PROMPT, LONG = "Anna has the red ball.", "Anna has the ball. " * 20


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return load_model(make_llama(tmp_path_factory.mktemp("llama")), device="cpu")


@pytest.fixture
def run(tiny):
    """Runs the code that an explorer shows, with the names that a lesson has."""
    return lambda explorer, **names: run_code(explorer, model=tiny[0], tokenizer=tiny[1], **names)


def as_shown(prob: float) -> str:
    return probability(prob).replace("&lt;", "<")


def test_tokens(tiny, run):
    explorer = explore_tokens(tiny[1], "a")
    find(explorer, "Text").value = 'Anna\'s \n"ball" {x} é🙂'
    _, pairs = run(explorer)
    for _, token_id in pairs:
        assert f'data-token="{token_id}"' in shown(explorer)
    assert len(pairs) == shown(explorer).count("data-token")
    assert "".join(text for text, _ in pairs[1:]).startswith('Anna\'s \n"ball" {x}')


def test_softmax(tiny, run):
    logits = {text: next_token_logits(*tiny, text)[0] for text in ("Anna", PROMPT)}
    explorer = explore_softmax(logits, tiny[1])
    moves = {"Prompt": PROMPT, "Temperature": 10**0.35, "Top-p (1: all)": 0.77}
    for name, value in {**moves, "Min-p (0: all)": 0.03, "Top-k (0: all)": 7}.items():
        find(explorer, name).value = value
        _, pairs = run(explorer)
        rows = rows_of(shown(explorer))[:-1]
        expected = [[visible(t), as_shown(p) if p else "dropped"] for t, p in pairs]
        assert [[row[0], row[-1]] for row in rows] == expected
    assert "dropped" in shown(explorer)


def test_decoding(tiny, run):
    explorer = step_decoding(*tiny, PROMPT)
    for clicks in (0, 1, 2):
        for _ in range(clicks):
            find(explorer, "Add 1 token").click()
        find(explorer, "Strategy").value = "sample, top-k 5"
        variables, best = run(explorer)
        candidates = [
            w for w in inside(explorer) if getattr(w, "tooltip", "") == "choose this token"
        ]
        assert [w.description for w in candidates] == [visible(token) for token, _ in best]
        bars = [w.value for w in inside(explorer) if type(w).__name__ == "FloatProgress"]
        assert bars == pytest.approx([prob for _, prob in best])
        assert int((variables["drawn_from"] > 0).sum()) == 5
        assert variables["chosen"].shape[1] == (0, 1, 3)[clicks]


def test_activations(tiny, run):
    inputs = encode(*tiny, PROMPT)
    activations = read_activations(tiny[0], **inputs)
    explorer = explore_activations(activations, token_strings(tiny[1], inputs["input_ids"][0]))
    find(explorer, "Leave the first token out").value = False
    find(explorer, "0").value = False
    for view in find(explorer, "View").options:
        find(explorer, "View").value, find(explorer, "Token").value = view, 2
        _, found = run(explorer, activations=activations)
        rows = [row[1:] for row in rows_of(shown(explorer))[::-1]]
        if view == "largest coordinates":
            pairs = zip(found[0].tolist(), found[1].tolist(), strict=True)
            assert rows == [[f"{i}: {number(v)}" for i, v in zip(*row)] for row in pairs]
        elif view == "similarity between layers":
            assert rows == [[f"{v:.2f}" for v in row] for row in found.tolist()]
        else:
            assert rows == [[*map(number, row)] for row in found.tolist()]


@pytest.mark.parametrize("prompt", [PROMPT, LONG])
def test_lens(tiny, run, prompt):
    explorer = explore_lens(*tiny, PROMPT)
    find(explorer, "Prompt").value = prompt
    find(explorer, "Layer").value, find(explorer, "Token").value = 2, 3
    _, five = run(explorer)
    assert rows_of(shown(explorer))[-5:] == [[visible(t), as_shown(p)] for t, p in five]


@pytest.mark.parametrize("prompt", [PROMPT, LONG])
def test_contrast(tiny, run, prompt):
    explorer = explore_contrast(*tiny, PROMPT)
    find(explorer, "Prompt").value = prompt
    find(explorer, "All").click()
    find(explorer, "Token").value, find(explorer, "alpha").value = 4, 0.25
    variables, (layer, after) = run(explorer)
    assert f"layer {int(layer)} differs most" in shown(explorer)
    kept = int(variables["result"].scores.isfinite().sum())
    assert f"{kept} {'token is' if kept == 1 else 'tokens are'} plausible" in shown(explorer)
    best = visible(token_strings(tiny[1], [int(after.argmax())])[0], 14)
    assert [best, as_shown(after.max().item())] in [
        [row[0], row[-1]] for row in rows_of(shown(explorer))
    ]


def test_steering(tiny, run):
    directions = mean_differences(*tiny, ["Anna was glad."], ["Ben was sad."])
    explorer = explore_steering(*tiny, directions, PROMPT)
    for strength in (3, 0):
        find(explorer, "3").value, find(explorer, "Strength").value = True, strength
        _, samples = run(explorer, directions=directions)
        table = steering_table(samples, samples)
        for text in re.findall("<td .*?<br>", table):
            assert text in shown(explorer)


@pytest.mark.parametrize("kind", ["previous token", "first token", "induction"])
def test_attention(tiny, run, kind):
    explorer = explore_attention(*tiny, PROMPT)
    find(explorer, "Score").value = kind
    find(explorer, "Heads").value, find(explorer, "Token").index = "L3H2", 2
    variables, (looks, looked_at) = run(explorer)
    scores = [f"{v:.2f}" for i in (4, 3, 2, 1) for v in variables["scores"][i][0].tolist()]
    heads = re.findall(r'::after {content:"(\d\.\d\d)"}', shown(explorer))[: len(scores)]
    assert heads == scores
    weights = [row[-1] for row in rows_of(shown(explorer))]
    largest = [w for each in (looks, looked_at) for w in each.topk(6).values.tolist()]
    assert weights == [as_shown(w) for w in largest]


def test_patching(tiny, run):
    explorer = explore_patching(*tiny, PROMPT, "Anna has the red lamp.", ("Anna", "Ben"), [0, 1, 3])
    find(explorer, "Layer").index, find(explorer, "Token").index = 1, 5
    _, (share, good, bad) = run(explorer)
    cells = re.findall(r'::after {content:"(.*?)"}', shown(explorer))
    assert [*map(float, cells)] == pytest.approx(share.flip(0).flatten().tolist(), abs=0.006)
    patched = rows_of(shown(explorer))[2]
    assert patched == ["with the patch", as_shown(good.item()), as_shown(bad.item())]


def test_it_is_not_there_until_asked_for_and_follows_each_control(tiny):
    explorer = explore_tokens(tiny[1], "one")
    assert "<pre" not in shown(explorer)
    find(explorer, "Show the code").value = True
    assert "&#x27;one&#x27;" in shown(explorer)
    find(explorer, "Text").value = "<two>"
    assert "&#x27;&lt;two&gt;&#x27;" in shown(explorer) and "&#x27;one&#x27;" not in shown(explorer)
    find(explorer, "Show the code").value = False
    assert "<pre" not in shown(explorer)
    assert "<pre" not in shown(Explorer([], "move it"))


def test_what_was_refused_or_not_picked_has_code_too(tiny):
    explorer = explore_lens(*tiny, PROMPT)
    find(explorer, "Show the code").value = True
    find(explorer, "None").click()
    find(explorer, "Prompt").value = "An\udc80"
    assert "An\\udc80" in shown(explorer)
