"""The lens explorer used as a person does, and compared with the function itself."""

from __future__ import annotations

import pytest
from playwright.sync_api import Locator, expect

from lab_page import LabPage, button, handles, press, type_line
from tutorial_utils.draw.html import visible
from tutorial_utils.lessons.lens.explorer import read_lens

RECALL = "Trump works at McDonald's. Trump works at"


def best_of(widget: Locator) -> Locator:
    return widget.locator(".widget-html").filter(has_text="the five most probable tokens")


def check(widget: Locator, view, layer: int, place: int) -> None:
    """The five best of a cell, its frame, and that its row and column say the same."""
    said = f"Layer {layer}, after {visible(view.tokens[place])}: the five most probable tokens"
    expect(best_of(widget)).to_contain_text(said)
    expect(best_of(widget).locator("tbody th")).to_have_text(
        [*map(visible, view.choices[layer][place])]
    )
    expect(best_of(widget)).to_be_visible()
    row = widget.locator("tr", has=widget.page.get_by_text(f"layer {layer}", exact=True))
    cell = row.locator("td").nth(place)
    expect(cell).to_have_text(visible(view.choices[layer][place][0], 12))
    assert cell.evaluate("e => getComputedStyle(e).outlineStyle") == "solid"
    framed = "all => all.filter(e => getComputedStyle(e).outlineStyle == 'solid').length"
    assert widget.locator("td").evaluate_all(framed) == 1
    first = f"{view.probs[layer, place, 0]:.3f}  {visible(view.choices[layer][place][0])}"
    assert cell.get_attribute("title").split("\n")[0] == first


@pytest.mark.parametrize("lesson", ["logit lens"], indirect=True)
def test_cells_are_picked_with_the_keyboard(lesson: LabPage, loaded, follow):
    widget = lesson.widget("explore_lens")
    view = read_lens(*loaded, RECALL)
    last, end = len(view.probs) - 1, len(view.tokens) - 1
    check(widget, view, last, end)
    moves = [lambda: press(handles(widget, "Token"), "ArrowLeft")] * end
    moves += [lambda: press(handles(widget, "Layer"), "ArrowLeft")] * last
    follow("the sliders of the lens explorer", lesson.time_moves(best_of(widget), moves))
    check(widget, view, 0, 0)
    press(handles(widget, "Layer"), "ArrowRight", "ArrowRight")
    press(handles(widget, "Token"), "ArrowRight", "ArrowRight", "ArrowRight")
    check(widget, view, 2, 3)
    lesson.shoot(widget, "picked")


@pytest.mark.parametrize("lesson", ["logit lens"], indirect=True)
def test_a_prompt_is_typed_and_layers_are_picked(lesson: LabPage, loaded):
    widget = lesson.widget("explore_lens")
    typed = widget.get_by_label("Prompt")
    prompt = "The opposite of hot is"
    type_line(typed, prompt)
    view = read_lens(*loaded, prompt)
    expect(best_of(widget)).to_contain_text(f"after {visible(view.tokens[-1])}")
    table = widget.locator("table").first
    expect(table.locator("thead th")).to_have_count(len(view.tokens) + 1)
    button(widget, "None").click()
    expect(widget).to_contain_text("Pick at least one of the layers.")
    expect(table).to_be_hidden()
    button(widget, "All").click()
    type_line(typed, RECALL)
    view = read_lens(*loaded, RECALL)
    expect(table.locator("thead th")).to_have_count(len(view.tokens) + 1)
    press(handles(widget, "Layer"), "End")
    check(widget, view, len(view.probs) - 1, len(view.tokens) - 1)
    lesson.shoot(widget, "typed")
