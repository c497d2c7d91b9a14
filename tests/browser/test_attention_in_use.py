"""The attention explorer used as a person does, and compared with the functions."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, expect

from lab_page import LabPage, button, cell, cells_of, drawing, handles, press, run_cells, type_line
from tutorial_utils import encode, head_scores, read_attention, token_strings
from tutorial_utils.draw.html import probability, visible

RECALL, OTHER = "Trump works at McDonald's. Trump works at", "The opposite of hot is"
LOAD = "from tutorial_utils import load_model\n\nmodel, tokenizer = load_model()"
EXPLORE = f"""
from tutorial_utils.lessons.layer import explore_attention

explore_attention(model, tokenizer, {RECALL!r})
"""


@pytest.fixture
def explorer(page, server) -> Iterator[LabPage]:
    made = run_cells(page, server, LOAD, EXPLORE)
    expect(made.widget("explore_attention").locator("button").first).to_be_visible()
    yield made
    assert made.problems() == []


def expected(loaded, prompt: str, layer: int, head: int, place: int) -> list[list[str]]:
    """The rows of the two lists under the pattern."""
    inputs = encode(*loaded, prompt)
    names = enumerate(token_strings(loaded[1], inputs["input_ids"][0]), start=1)
    names = [f"{i} {visible(token, 14)}" for i, token in names]
    pattern = read_attention(loaded[0], **inputs)[layer][0, head]
    rows = []
    for weights in (pattern[place], pattern[:, place]):
        best = weights.topk(min(6, len(weights)))
        for weight, i in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            rows.append([names[i], "", probability(weight).replace("&lt;", "<")])
    return rows


def check(widget: Locator, loaded, prompt: str, layer: int, head: int, place: int) -> None:
    """The lists, the title of the pattern, and the frames around the picked head and token."""
    image = widget.locator("img[alt]")
    title = f"L{layer}H{head}: attention pattern"
    expect(image).to_have_attribute("alt", re.compile(title))
    lists = widget.locator("table")
    expect(lists.first.locator("caption")).to_contain_text(f"Where {place + 1} ")
    shown = [row for table in lists.all() for row in cells_of(table)]
    assert shown == expected(loaded, prompt, layer, head, place)
    framed = "all => all.filter(e => getComputedStyle(e).outlineStyle == 'solid')"
    names = widget.locator("button").evaluate_all(f"{framed}\n.map(e => e.textContent)")
    assert [name.split()[0] for name in names] == [f"L{layer}H{head}", str(place + 1)]


def score_of(found: Locator) -> str:
    """The number under a cell's label."""
    return found.evaluate("e => getComputedStyle(e, '::after').content.slice(1, -1)")


def test_heads_and_tokens_with_the_mouse_and_the_keyboard(explorer: LabPage, loaded, follow):
    widget = explorer.widget("explore_attention")
    tokens = token_strings(loaded[1], encode(*loaded, RECALL)["input_ids"][0])
    last = len(tokens) - 1
    check(widget, loaded, RECALL, 1, 0, last)
    lists = drawing(widget, "table")
    cells = {name: cell(widget, name) for name in ("L2H1", "L3H2", "L1H3", "L8H0")}
    words = [cell(widget, f"{i} {visible(t, 12)}") for i, t in enumerate(tokens, start=1)]
    moves = [lambda one=one: one.click() for one in (*cells.values(), *words)]
    moves += [lambda: press(handles(widget, "Token"), "ArrowLeft")] * 5
    moves += [lambda: press(handles(widget, "Layer"), "ArrowLeft")] * 5
    moves += [lambda: press(handles(widget, "Head"), "ArrowRight")] * 2
    follow("the attention explorer", explorer.time_moves(lists, moves))
    check(widget, loaded, RECALL, 3, 2, last - 5)
    words[2].focus()
    explorer.page.keyboard.press("Space")
    expect(widget.locator("caption").first).to_contain_text("Where 3 ")
    check(widget, loaded, RECALL, 3, 2, 2)
    explorer.shoot(widget, "attention")


def test_the_map_shows_the_score_that_is_chosen(explorer: LabPage, loaded):
    widget = explorer.widget("explore_attention")
    ids = encode(*loaded, RECALL)["input_ids"]
    patterns = read_attention(loaded[0], ids)
    for name, kind in (("first token", "first"), ("previous token", "previous")):
        widget.get_by_label("Score").select_option(name)
        scores = head_scores(patterns, kind)
        expect(widget).to_contain_text("first token" if kind == "first" else "token before")
        for layer, head in ((1, 0), (2, 1), (8, 3)):
            explorer.page.wait_for_timeout(200)
            assert score_of(cell(widget, f"L{layer}H{head}")) == f"{scores[layer][0, head]:.2f}"
    widget.get_by_label("Score").select_option("induction")
    expect(widget).to_contain_text("is read twice in a row")


def test_another_prompt_a_refused_one_and_the_code(explorer: LabPage, loaded):
    widget = explorer.widget("explore_attention")
    cell(widget, "L2H1").click()
    type_line(widget.get_by_label("Prompt"), "a " * 400)
    expect(widget).to_contain_text("The prompt is too long")
    expect(widget.locator("img[alt]")).to_be_hidden()
    type_line(widget.get_by_label("Prompt"), OTHER)
    place = encode(*loaded, OTHER)["input_ids"].shape[1] - 1
    expect(widget.locator("caption").first).to_contain_text(f"Where {place + 1} ")
    check(widget, loaded, OTHER, 2, 1, place)
    button(widget, "Show the code").click()
    code = widget.locator("pre")
    expect(code).to_contain_text(f"encode(model, tokenizer, {OTHER!r})")
    code.click()
    assert explorer.page.evaluate("getSelection().toString()").strip() == code.inner_text().strip()


def test_a_long_prompt_is_scrolled_and_stays_where_it_was(explorer: LabPage, follow):
    widget = explorer.widget("explore_attention")
    type_line(widget.get_by_label("Prompt"), "Anna has the red ball. " * 30)
    pattern = drawing(widget, "img[alt]")
    expect(widget.locator("caption").first).to_contain_text("Where 1")
    explorer.page.wait_for_function("document.querySelectorAll('.looks').length > 100")
    pattern.evaluate("e => { e.scrollTop = 500; e.scrollLeft = 300; }")
    lists = drawing(widget, "table")
    moves = [lambda: press(handles(widget, "Token"), "ArrowLeft")] * 15
    follow("the attention explorer, long prompt", explorer.time_moves(lists, moves))
    assert pattern.evaluate("e => [e.scrollTop, e.scrollLeft]") == [500, 300]
    room = explorer.cells.nth(1).locator(".jp-OutputArea").bounding_box()
    for box in (pattern.bounding_box(), widget.bounding_box()):
        assert box["x"] + box["width"] <= room["x"] + room["width"] + 2, "wider than the notebook"
    explorer.shoot(widget, "attention_long")
