"""The lens explorer shows what the functions say."""

from __future__ import annotations

import re
from html import unescape

import pytest
import torch

from explorer_parts import parse, rows_of, words
from tiny_models import make_gpt2, make_llama
from tutorial_utils import encode, load_model, logit_lens, read_activations, token_strings
from tutorial_utils.draw.html import GREY, probability, visible
from tutorial_utils.lessons.explorer import LayerPicker
from tutorial_utils.lessons.lens.explorer import best_five, explore_lens, lens_table, read_lens

PROMPT = "Trump works at McDonald's."


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return load_model(make_llama(tmp_path_factory.mktemp("llama")))


@pytest.fixture
def parts(llama):
    return Parts(*llama)


class Parts:
    """An explorer and the controls in it."""

    def __init__(self, model, tokenizer, picker=None, prompt=PROMPT):
        self.box = explore_lens(model, tokenizer, prompt, picker)
        self.text, self.picker, self.message, self.table, self.mark, *below = self.box.children
        (self.layer, self.token), self.best = below[0].children, below[1]

    def rows(self):
        return re.findall(r"<tr><th>layer (\d+)</th>", self.table.value)

    def picked(self):
        """Row and column of the cell that has the frame, from 1."""
        return [int(n) for n in re.findall(r"nth-child\((\d+)\)", self.mark.value)]


def expected(model, tokenizer, prompt, layer, place):
    activations = read_activations(model, **encode(model, tokenizer, prompt))
    best = logit_lens(model, activations)[layer][0, place].softmax(-1).topk(5)
    return token_strings(tokenizer, best.indices), best.values.tolist()


def check(parts, llama, prompt, layer, place):
    tokens, probs = expected(*llama, prompt, layer, place)
    names, numbers = zip(*rows_of(parts.best.value), strict=True)
    assert [*names] == [visible(token) for token in tokens]
    assert [*map(float, numbers)] == pytest.approx(probs, abs=6e-4)
    assert f"Layer {layer}," in parts.best.value


def test_it_starts_with_all_layers_and_the_last_cell(parts, llama):
    seq = encode(*llama, PROMPT)["input_ids"].shape[1]
    assert parts.rows() == ["4", "3", "2", "1", "0"]
    assert (parts.layer.value, parts.token.value) == (4, seq - 1)
    assert parts.picked() == [1, seq + 1]  # the head of the row is a column too
    check(parts, llama, PROMPT, 4, seq - 1)
    assert not parts.message.value


def test_each_cell_can_be_picked_with_the_sliders(parts, llama):
    for layer, place in ((0, 0), (2, 3), (3, 1)):
        parts.layer.value, parts.token.value = layer, place
        check(parts, llama, PROMPT, layer, place)
        assert parts.picked() == [5 - layer, place + 2]


def test_each_cell_says_its_first_choice_and_its_five_best(parts, llama):
    cells = re.findall(
        r'<td [^>]*title="(.*?)"><span .*?>(.*?)</span></td>', parts.table.value, re.S
    )
    seq = encode(*llama, PROMPT)["input_ids"].shape[1]
    assert len(cells) == 5 * seq
    for layer, place in ((4, 0), (1, 2), (0, seq - 1)):
        tokens, probs = expected(*llama, PROMPT, layer, place)
        title, first = cells[(4 - layer) * seq + place]
        pairs = zip(tokens, map(probability, probs), strict=True)
        lines = [f"{unescape(prob)}  {visible(token)}" for token, prob in pairs]
        assert unescape(title).split("\n") == lines
        assert unescape(first) in (visible(tokens[0]), visible(tokens[0], 12))


def test_the_sliders_follow_a_new_prompt(parts, llama):
    parts.layer.value = 2
    prompt = "The capital of France is"
    parts.text.value = prompt
    seq = encode(*llama, prompt)["input_ids"].shape[1]
    assert (parts.layer.value, parts.token.value) == (2, seq - 1)
    check(parts, llama, prompt, 2, seq - 1)
    parts.layer.value, parts.token.value, parts.picker.value = 0, 1, (0, 3)
    check(parts, llama, prompt, 0, seq - 1)


def test_a_picker_that_others_use_too_says_which_layers(llama):
    picker = LayerPicker(range(5), picked=[1, 3])
    parts = Parts(*llama, picker)
    assert parts.picker is picker and parts.rows() == ["3", "1"]
    assert parts.layer.options == (1, 3) and parts.picked()[0] == 1
    parts.layer.value = 1
    assert parts.picked()[0] == 2
    picker.value = (0, 3, 4)
    assert parts.rows() == ["4", "3", "0"] and parts.layer.value == 4
    picker.value = ()
    assert "Pick at least one" in parts.message.value
    assert parts.table.layout.visibility == parts.best.layout.visibility == "hidden"
    picker.value = (2,)
    assert not parts.message.value and parts.rows() == ["2"]
    assert parts.table.layout.visibility is None


def test_of_a_long_prompt_the_last_tokens_are_shown(llama):
    view = read_lens(*llama, "a b " * 40)
    assert len(view.tokens) == view.probs.shape[1] == len(view.choices[0]) == 40
    seq = encode(*llama, "a b " * 40)["input_ids"].shape[1]
    assert view.left_out == seq - 40
    assert f"The first {seq - 40} tokens are left out." in lens_table(view, [0, 4])
    expected_tokens, _ = expected(*llama, "a b " * 40, 3, -1)
    assert view.choices[3][-1] == expected_tokens


def test_tokens_cannot_break_the_page(llama):
    view = read_lens(*llama, "<b>'\"&\n</style>")
    page = parse(lens_table(view, range(5)) + best_five(view, 0, 0))
    heads = words(page.find(".//thead/tr"))[1:]
    assert heads == [visible(token, 12) for token in view.tokens]
    tags = set("style div table caption colgroup thead tbody tr th td span".split())
    assert {element.tag for element in page.iter()} <= tags


def test_what_is_not_finite_is_grey_and_no_token(llama, monkeypatch):
    def broken(*given, **inputs):
        activations = read_activations(*given, **inputs)
        activations[2][0, 1] = torch.nan
        return activations

    monkeypatch.setattr("tutorial_utils.lessons.lens.explorer.read_activations", broken)
    view = read_lens(*llama, PROMPT)
    cells = [cell for cell in lens_table(view, range(5)).split("<td ") if GREY in cell]
    assert view.choices[2][1] == ["nan"] * 5
    assert len(cells) == 1 and ">nan</span>" in cells[0] and 'title="nan  nan' in cells[0]
    assert best_five(view, 2, 1).count("nan") == 10 and "width:0.00%" in best_five(view, 2, 1)


def test_a_model_without_bos_and_two_explorers_on_one_page(tmp_path):
    model, tokenizer = load_model(make_gpt2(tmp_path))
    one, two = (Parts(model, tokenizer) for _ in range(2))
    names = [re.search(r'<table class="(\w+)"', parts.table.value)[1] for parts in (one, two)]
    assert names[0] != names[1] and all(
        name in parts.mark.value for name, parts in zip(names, (one, two), strict=True)
    )
    assert torch.isfinite(read_lens(model, tokenizer, PROMPT).probs).all()
