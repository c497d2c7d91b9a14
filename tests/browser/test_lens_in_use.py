"""The lens explorer of lesson 05 used as a person does, and compared with the function itself."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, expect

from lab_page import LabPage, handles, press
from tutorial_utils import load_model
from tutorial_utils.html_views import visible
from tutorial_utils.widgets_lens import read_lens

RECALL = "Trump works at McDonald's. Trump works at"


@pytest.fixture(scope="module")
def loaded():
    return load_model()


def best_of(widget: Locator) -> Locator:
    return widget.locator(".widget-html").filter(has_text="the five best")


def check(widget: Locator, view, layer: int, place: int) -> None:
    """The five best of a cell, its frame, and that its row and column say the same."""
    said = f"Layer {layer}, after {visible(view.tokens[place])}: the five best"
    expect(best_of(widget)).to_contain_text(said)
    expect(best_of(widget).locator("code")).to_have_text(
        [visible(view.tokens[place]), *map(visible, view.choices[layer][place])]
    )
    row = widget.locator("tr", has=widget.page.get_by_text(f"layer {layer}", exact=True))
    cell = row.locator("td").nth(place)
    expect(cell).to_have_text(visible(view.choices[layer][place][0], 12))
    assert cell.evaluate("e => getComputedStyle(e).outlineStyle") == "solid"
    framed = "all => all.filter(e => getComputedStyle(e).outlineStyle == 'solid').length"
    assert widget.locator("td").evaluate_all(framed) == 1
    first = f"{view.probs[layer, place, 0]:.3f}  {visible(view.choices[layer][place][0])}"
    assert cell.get_attribute("title").split("\n")[0] == first


@pytest.mark.parametrize("lesson", ["05"], indirect=True)
def test_cells_are_picked_with_the_keyboard(lesson: LabPage, loaded, follow):
    widget = lesson.widget("explore_lens")
    view = read_lens(*loaded, RECALL)
    last, end = len(view.probs) - 1, len(view.tokens) - 1
    check(widget, view, last, end)
    moves = [lambda: press(handles(widget, "Token"), "ArrowLeft")] * end
    moves += [lambda: press(handles(widget, "Layer"), "ArrowLeft")] * last
    follow("lesson 05, the sliders of the lens explorer", lesson.time_moves(best_of(widget), moves))
    check(widget, view, 0, 0)
    press(handles(widget, "Layer"), "ArrowRight", "ArrowRight")
    press(handles(widget, "Token"), "ArrowRight", "ArrowRight", "ArrowRight")
    check(widget, view, 2, 3)
    lesson.shoot(widget, "picked")


@pytest.mark.parametrize("lesson", ["05"], indirect=True)
def test_a_prompt_is_typed_and_layers_are_picked(lesson: LabPage, loaded):
    widget = lesson.widget("explore_lens")
    typed = widget.get_by_label("Prompt")
    prompt = "The opposite of hot is"
    typed.fill(prompt)
    typed.press("Enter")
    view = read_lens(*loaded, prompt)
    expect(best_of(widget)).to_contain_text(f"after {visible(view.tokens[-1])}")
    expect(widget.locator("thead th")).to_have_count(len(view.tokens) + 1)

    widget.get_by_role("button", name="None", exact=True).click()
    expect(widget).to_contain_text("Pick at least one of the layers.")
    widget.get_by_role("button", name="All", exact=True).click()
    expect(widget.locator("tbody th", has_text=re.compile(r"^layer \d+$"))).to_have_count(
        len(view.probs)
    )
    expect(widget).not_to_contain_text("Pick at least one of the layers.")
    typed.fill("")
    typed.press("Enter")
    expect(widget).to_contain_text("Type a prompt and press Enter.")
    typed.fill(RECALL)
    typed.press("Enter")
    view = read_lens(*loaded, RECALL)
    expect(widget.locator("thead th")).to_have_count(len(view.tokens) + 1)
    expect(widget).not_to_contain_text("Type a prompt and press Enter.")
    press(handles(widget, "Layer"), "End")
    check(widget, view, len(view.probs) - 1, len(view.tokens) - 1)
    lesson.shoot(widget, "typed")
