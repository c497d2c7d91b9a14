"""The feature explorer used as a person does: by number, by word and by token."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, expect

from lab_page import LabPage, handles, press, type_line


def page_of(widget: Locator) -> Locator:
    return widget.locator(".widget-html").filter(has_text="Feature")


def shown(widget: Locator) -> int:
    return int(re.search(r"Feature (\d+) fires on", page_of(widget).inner_text())[1])


@pytest.mark.parametrize("lesson", ["sparse features"], indirect=True)
def test_a_feature_is_picked_by_number_word_and_token(lesson: LabPage, follow):
    widget = lesson.widget("explore_features")
    expect(page_of(widget)).to_contain_text("most strongly here")
    number = widget.get_by_label("Feature")
    type_line(number, "7")
    expect(page_of(widget)).to_contain_text("Feature 7 ")
    moves = [lambda: press(number, "ArrowUp")] * 16
    follow("the number of the feature explorer", lesson.time_moves(page_of(widget), moves))
    expect(page_of(widget)).to_contain_text("Feature 23 ")

    search = widget.get_by_label("Search")
    type_line(search, "sad")
    expect(page_of(widget)).not_to_contain_text("Feature 23 fires on")
    first = shown(widget)
    assert number.input_value() == str(first)
    press(handles(widget, "Found"), "ArrowRight")
    expect(page_of(widget)).not_to_contain_text(f"Feature {first} fires on")
    lesson.shoot(widget, "found")

    type_line(search, "zebra")
    expect(widget).to_contain_text("No token of the texts contains that")
    expect(page_of(widget)).to_be_hidden()
    type_line(widget.get_by_label("Prompt"), "Anna likes pizza.")
    expect(page_of(widget)).to_be_visible()
    at_end = number.input_value()
    press(handles(widget, "Token"), "Home")
    expect(number).not_to_have_value(at_end)
    expect(page_of(widget)).to_contain_text("Its direction raises")
    lesson.shoot(widget, "typed")
