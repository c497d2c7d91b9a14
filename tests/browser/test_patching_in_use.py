"""The patching explorer used as a person does, and compared with the functions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, expect

from lab_page import LabPage, cells_of, drawing, handles, press, run_cells, type_line
from tutorial_utils import token_strings
from tutorial_utils.draw.html import probability, visible
from tutorial_utils.lessons.patching.patching_explorer import read_patching, share_look

CLEAN, CORRUPTED, ANSWERS = "The capital of France is", "The capital of Italy is", ("Paris", "Rome")
LOAD = "from tutorial_utils import load_model\n\nmodel, tokenizer = load_model()"
EXPLORE = f"""
from tutorial_utils.lessons.patching import explore_patching

explore_patching(model, tokenizer, {CLEAN!r}, {CORRUPTED!r}, {ANSWERS!r})
"""


@pytest.fixture
def explorer(page, server) -> Iterator[LabPage]:
    made = run_cells(page, server, LOAD, EXPLORE)
    expect(made.widget("explore_patching").locator("button").first).to_be_visible()
    yield made
    assert made.problems() == []


def cells(widget: Locator) -> Locator:
    return widget.locator(".widget-toggle-buttons button")


def check(widget: Locator, loaded, view, row: int, place: int) -> None:
    """The tables of a cell, its frame, and its name for a screen reader."""
    title = f"Layer {view.layers[row]}, token {view.names[place]}"
    expect(widget.locator("caption").first).to_have_text(title)
    names = ["clean run", "corrupted run", "with the patch"]
    runs = [*view.run_probs.tolist(), view.probs[row, place].tolist()]
    rows = [[name, "", *map(probability, run)] for name, run in zip(names, runs, strict=True)]
    tokens = token_strings(loaded[1], view.best[row, place])
    best = zip(tokens, view.best_probs[row, place].tolist(), strict=True)
    rows += [[visible(token, 14), "", probability(prob)] for token, prob in best]
    rows = [[text.replace("&lt;", "<") for text in line] for line in rows]
    assert [line for table in widget.locator("table").all() for line in cells_of(table)] == rows
    framed = "all => all.filter(e => getComputedStyle(e).outlineStyle == 'solid')"
    found = cells(widget).evaluate_all(f"{framed}\n.map(e => e.textContent)")
    assert found == [f"layer {view.layers[row]}, token {view.names[place]}"]


def test_patches_are_picked_and_other_prompts_typed(explorer: LabPage, loaded, follow):
    widget = explorer.widget("explore_patching")
    view = read_patching(*loaded, (CLEAN, CORRUPTED), ANSWERS)
    last, end = len(view.layers) - 1, len(view.names) - 1
    check(widget, loaded, view, 0, end)
    number = "all => all.map(e => getComputedStyle(e, '::after').content.slice(1, -1))"
    shares = [share_look(v).text for row in view.share.flip(0).tolist() for v in row]
    assert cells(widget).evaluate_all(number) == shares
    moves = [lambda i=i: cells(widget).nth(i).click() for i in range(4, 18)]
    moves += [lambda: press(handles(widget, "Layer"), "ArrowLeft")] * 3
    moves += [lambda: press(handles(widget, "Token"), "ArrowLeft")] * 3
    follow("the patching explorer", explorer.time_moves(drawing(widget, "table"), moves))
    row, place = last - 17 // len(view.names) - 3, 17 % len(view.names) - 3
    check(widget, loaded, view, row, place)
    explorer.shoot(widget, "patching")

    type_line(widget.get_by_label("Corrupted prompt"), "The capital of Italy")
    expect(widget).to_contain_text("so give prompts of the same length")
    expect(widget.locator("table").first).to_be_hidden()
    type_line(widget.get_by_label("Corrupted prompt"), CORRUPTED)
    expect(widget.locator("table").first).to_be_visible()
    check(widget, loaded, view, 0, end)
