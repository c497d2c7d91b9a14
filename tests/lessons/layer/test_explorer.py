"""The attention explorer shows what `read_attention` and `head_scores` give."""

from __future__ import annotations

import base64
import io
import re

import matplotlib.image
import numpy as np
import pytest
import torch

from explorer_parts import find, parse, rows_of, shown, words
from tiny_models import make_gpt2, make_llama
from tutorial_utils import encode, head_scores, load_model, read_attention, token_strings
from tutorial_utils.draw.described import counted
from tutorial_utils.draw.html import GREY, probability, visible
from tutorial_utils.lessons.layer import explore_attention
from tutorial_utils.lessons.layer import explorer as module
from tutorial_utils.lessons.layer.drawing import THUMBNAIL, look_lists, pattern_html, thumbnails
from tutorial_utils.lessons.layer.explorer import MOST_TOKENS, read_patterns, said_twice

PROMPT = "Anna has the red ball. Anna has"


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return load_model(make_llama(tmp_path_factory.mktemp("llama")))


@pytest.fixture(scope="module")
def patterns(llama):
    return read_attention(llama[0], **encode(*llama, PROMPT))


@pytest.fixture
def explorer(llama):
    return explore_attention(*llama, PROMPT)


def texts(explorer, grid: str) -> list[str]:
    """What stands under the labels of the cells, from the top left on."""
    (name,) = [c for c in find(explorer, grid)._dom_classes if c.startswith("cells")]
    return re.findall(
        rf'\.{name} button:nth-child\(\d+\)::after {{content:"(.*?)"}}', styles(explorer)
    )


def styles(explorer) -> str:
    return "".join(re.findall("<style>.*?</style>", shown(explorer), re.S))


def pixels(address: str) -> np.ndarray:
    data = address.removeprefix("data:image/png;base64,")
    return matplotlib.image.imread(io.BytesIO(base64.b64decode(data)), format="png")


def lists(explorer) -> list[list[str]]:
    return rows_of(explorer.children[-3].value)


def expected_lists(pattern: torch.Tensor, tokens: list[str], place: int) -> list[list[str]]:
    rows = []
    for weights in (pattern[place], pattern[:, place]):
        best = weights.topk(min(6, len(weights)))
        rows += [
            [f"{i + 1} {visible(tokens[i], 14)}", probability(w).replace("&lt;", "<")]
            for w, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]
    return rows


def check(explorer, llama, prompt: str, layer: int, head: int, place: int) -> None:
    """All that is shown of one head and one token."""
    inputs = encode(*llama, prompt)
    tokens = token_strings(llama[1], inputs["input_ids"][0])
    pattern = read_attention(llama[0], **inputs)[layer][0, head]
    title = (
        f"L{layer}H{head}: attention pattern of {counted(len(tokens), 'token')}, queries by keys"
    )
    assert title in shown(explorer)
    assert lists(explorer) == expected_lists(pattern, tokens, place)
    weights = [*pattern[place, : place + 1].tolist(), *pattern[place + 1 :, place].tolist()]
    assert [text.strip() for text in texts(explorer, "Tokens")] == [
        f"{w:.2f}" if w >= 0.005 else "" for w in weights
    ]
    assert find(explorer, "Heads").value == f"L{layer}H{head}"
    assert find(explorer, "Tokens").index == find(explorer, "Token").index == place


def test_it_starts_with_the_first_head_and_the_last_token(explorer, llama, patterns):
    seq = patterns[1].shape[-1]
    check(explorer, llama, PROMPT, 1, 0, seq - 1)
    assert find(explorer, "Heads").options[0] == "L4H0"
    assert find(explorer, "Heads").options[-1] == "L1H3"


def test_heads_and_tokens_are_picked_by_click_and_by_slider(explorer, llama):
    find(explorer, "Heads").value = "L3H2"
    check(explorer, llama, PROMPT, 3, 2, len(find(explorer, "Tokens").options) - 1)
    find(explorer, "Layer").value, find(explorer, "Head").value = "2", "1"
    find(explorer, "Tokens").index = 3
    check(explorer, llama, PROMPT, 2, 1, 3)
    find(explorer, "Token").index = 0
    check(explorer, llama, PROMPT, 2, 1, 0)


@pytest.mark.parametrize("kind", ["previous token", "first token", "induction"])
def test_the_numbers_of_the_map_are_the_scores(explorer, llama, patterns, kind):
    find(explorer, "Score").value = kind
    scores = head_scores(patterns, kind.split()[0]) if kind != "induction" else None
    if scores is None:
        ids = encode(*llama, PROMPT)["input_ids"][0].tolist()
        twice = torch.tensor([ids + ids[1:]])
        period = len(ids) - 1
        scores = head_scores(read_attention(llama[0], twice), kind, period=period, start=1)
    expected = [f"{score:.2f}" for layer in (4, 3, 2, 1) for score in scores[layer][0]]
    assert texts(explorer, "Heads") == expected
    assert "nan" not in shown(explorer)


def test_moves_never_run_the_model_and_a_score_runs_it_once(explorer, llama):
    calls = []
    handle = llama[0].register_forward_hook(lambda *_: calls.append(1))
    try:
        for name in ("Heads", "Tokens", "Layer", "Head", "Token"):
            for place in range(len(find(explorer, name).options)):
                find(explorer, name).index = place
        assert not calls
        for kind in ("induction", "first token", "induction"):
            find(explorer, "Score").value = kind
        assert len(calls) <= 1
    finally:
        handle.remove()


def test_the_picture_of_a_pattern_has_a_pixel_for_each_weight(patterns):
    pattern, names = patterns[2][0, 1], [f"<{i}>" for i in range(patterns[2].shape[-1])]
    page = parse(pattern_html(pattern, names, 2, "a <title>"))
    image = page.find(".//img")
    shades = pixels(image.get("src"))[..., 0]  # the darker, the more
    assert shades.shape == tuple(pattern.shape)
    order = np.argsort(pattern.numpy().ravel(), kind="stable")
    assert (np.diff(shades.ravel()[order]) <= 0).all()
    assert image.get("alt") == "a <title>"
    assert words(page)[1:] == ["query ↓ key →", *names, *names]
    tips = [row.get("title") for row in page.findall(".//div[@class='looks']")]
    best = pattern[5].topk(2)
    first, second = (f"{i + 1} <{i}> {w:.3f}" for w, i in zip(*map(torch.Tensor.tolist, best)))
    assert tips[5].startswith(f"6 <5> looks at: {first}, {second}")


def test_a_cell_of_the_map_shows_its_own_head(llama):
    view = read_patterns(*llama, PROMPT)
    css, places = thumbnails(torch.cat([*view.patterns.values()]))
    sheet = pixels(re.search(r"url\((.*?)\)", css)[1])
    size, seq = THUMBNAIL, len(view.tokens)
    for row, layer in enumerate(view.patterns):
        for head in range(4):
            left, top = (-int(n) for n in re.findall(r"(-?\d+)px", places[row][head]))
            part = sheet[top // size * seq :, left // size * seq :][:seq, :seq, 0]
            whole = pixels(
                re.search(
                    r'src="(.*?)"', pattern_html(view.patterns[layer][0, head], view.tokens, 0, "")
                )[1]
            )
            assert np.array_equal(part, whole[..., 0])


def test_another_prompt_keeps_the_head(explorer, llama):
    find(explorer, "Heads").value = "L3H2"
    find(explorer, "Score").value = "induction"
    before = texts(explorer, "Heads")
    find(explorer, "Prompt").value = prompt = "The capital of France is Paris."
    check(explorer, llama, prompt, 3, 2, len(encode(*llama, prompt)["input_ids"][0]) - 1)
    assert texts(explorer, "Heads") != before


def test_one_token_has_no_score_and_one_pattern(tmp_path):
    model, tokenizer = load_model(make_gpt2(tmp_path))
    explorer = explore_attention(model, tokenizer, "a")
    assert find(explorer, "Tokens").options == ("1 a",)
    for kind in ("previous token", "first token", "induction"):
        find(explorer, "Score").value = kind
        assert f"The prompt is too short for the score {kind!r}".replace("'", "&#x27;") in shown(
            explorer
        )
        assert set(texts(explorer, "Heads")) == {"nan"} and GREY.lower() in styles(explorer).lower()
    assert lists(explorer) == [["1 a", "1.000"]] * 2
    find(explorer, "Prompt").value = "Anna has"
    assert "nan" not in texts(explorer, "Heads")


def test_too_many_tokens_are_told_and_not_shown(tmp_path):
    model, tokenizer = load_model(make_gpt2(tmp_path))
    with pytest.raises(
        ValueError, match=f"401 tokens, and this explorer shows at most {MOST_TOKENS}"
    ):
        explore_attention(model, tokenizer, " a" * 401)
    explorer = explore_attention(model, tokenizer, "a b")
    find(explorer, "Prompt").value = " a" * 401
    assert "The prompt has 401 tokens" in shown(explorer) and "<table" not in shown(explorer)
    find(explorer, "Prompt").value = " a" * MOST_TOKENS
    assert len(find(explorer, "Tokens").options) == MOST_TOKENS and "<table" in shown(explorer)


def test_induction_says_no_more_twice_than_there_is_room_for(llama):
    model, tokenizer = llama
    ids = torch.tensor([[tokenizer.bos_token_id, *[20] * 200]])
    assert said_twice(model, tokenizer, ids) == (1, 50)
    assert said_twice(model, tokenizer, ids[:, :31]) == (1, 30)
    assert said_twice(model, tokenizer, ids[:, 1:31]) == (0, 30)
    model.config.max_position_embeddings, before = 64, model.config.max_position_embeddings
    try:
        assert said_twice(model, tokenizer, ids) == (1, 31)
    finally:
        model.config.max_position_embeddings = before


def test_after_a_score_that_failed_no_other_score_stands_in_its_place(explorer, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(module, "read_attention", broken)
        for control, value in (("Score", "induction"), ("Heads", "L2H1")):
            with pytest.raises(RuntimeError):
                find(explorer, control).value = value
            assert "out of memory" in shown(explorer) and "L2H1" not in shown(explorer)
    find(explorer, "Heads").value = "L2H2"
    assert "L2H2" in shown(explorer) and "is read twice in a row" in shown(explorer)


def test_layers_without_a_pattern_are_named(llama, monkeypatch):
    def some(model, input_ids, layers=None, **inputs):
        found = read_attention(model, input_ids, layers, **inputs)
        return {layer: pattern for layer, pattern in found.items() if layer != 2}

    monkeypatch.setattr(module, "read_attention", some)
    explorer = explore_attention(*llama, PROMPT)
    assert "These decoder layers gave no pattern of finite numbers: 2." in shown(explorer)
    assert find(explorer, "Layer").options == ("1", "3", "4")
    find(explorer, "Layer").value = "3"
    check(explorer, llama, PROMPT, 3, 0, len(find(explorer, "Tokens").options) - 1)


def test_a_model_that_is_refused_says_why(tmp_path):
    model, tokenizer = load_model(make_llama(tmp_path, layers=2))
    with torch.no_grad():
        model.model.layers[0].self_attn.q_proj.weight.fill_(torch.nan)
    with pytest.raises(ValueError, match="decoder layer 1 gave no attention pattern"):
        explore_attention(model, tokenizer, PROMPT)


def test_layers_with_unlike_patterns_make_no_map(llama, monkeypatch):
    def unlike(*given, **inputs):
        found = read_attention(*given, **inputs)
        return {**found, 2: found[2][:, :3]}

    monkeypatch.setattr(module, "read_attention", unlike)
    with pytest.raises(ValueError, match="all layers must have the same number of heads"):
        explore_attention(*llama, PROMPT)


def test_tokens_cannot_break_the_page(llama):
    view = read_patterns(*llama, "<b>'\"&\n</style>")
    pattern = view.patterns[1][0, 0]
    page = parse(pattern_html(pattern, view.tokens, 0, "<i>") + look_lists(pattern, view.tokens, 0))
    tags = set("style div img table caption colgroup col thead tbody tr th td".split())
    assert {element.tag for element in page.iter()} <= tags
