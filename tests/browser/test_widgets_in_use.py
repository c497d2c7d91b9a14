"""Widgets used as a person does, and compared with the functions themselves."""

from __future__ import annotations

import re

import pytest
import torch
from playwright.sync_api import Locator, expect

from lab_page import LabPage, button, cells_of, drawing, handles, press
from tutorial_utils import (
    encode,
    next_token_logits,
    record_activations,
    token_strings,
)
from tutorial_utils.draw.html import number, visible
from tutorial_utils.lessons.decoding.steps import continue_prompt
from tutorial_utils.lessons.softmax.explorer import filtered_choice
from tutorial_utils.lessons.tokens.explorer import token_rows
from tutorial_utils.measures import (
    residual_norms,
)

STORY = "One morning, Anna went to the park."
RECALL = "Trump works at McDonald's. Trump works at"


def lesson(subject: str):
    return pytest.mark.parametrize("lesson", [subject], indirect=True)


# The token explorer.


@lesson("tokenization")
def test_tokens_change_while_one_types(lesson: LabPage, loaded, follow):
    _, tokenizer = loaded
    widget = lesson.widget("explore_tokens")
    typed = widget.get_by_label("Text")
    typed.click()
    lesson.page.keyboard.press("Control+A")
    lesson.page.keyboard.press("Delete")
    boxes = widget.locator("[data-token]")
    expect(boxes).to_have_count(len(token_rows(tokenizer, "")))

    text = "Anna's ball, 3 times"
    keys = [lambda key=key: lesson.page.keyboard.press(key) for key in text]
    times = lesson.time_moves(widget.locator(".widget-html").nth(1), keys)
    follow("typing into the tokenizer explorer", times)
    lesson.page.keyboard.insert_text(" é🙂")

    rows = token_rows(tokenizer, text + " é🙂")
    expect(boxes).to_have_count(len(rows))
    expected = [
        [visible(row.text, 40), str(row.token_id), row.raw.hex(" ").upper() or "special"]
        for row in rows
    ]
    assert boxes.evaluate_all("all => all.map(b => [...b.children].map(c => c.textContent))") == (
        expected
    )
    size = len((text + " é🙂").encode())
    expect(widget).to_contain_text(f"5 words · {len(text) + 3} characters · {size} bytes")
    expect(widget).to_contain_text(f"{len(rows)} tokens")
    lesson.shoot(widget, "typed")


# The softmax explorer.


def told_of(choice) -> str:
    return (
        f"Kept: {int(choice.kept.sum()):,} of {len(choice.probs):,} tokens, with "
        f"{choice.mass:.3f} of the probability. Entropy of the new distribution: "
        f"{choice.bits:.2f} bits."
    )


@lesson("softmax")
def test_bars_follow_the_sliders(lesson: LabPage, loaded, follow):
    widget = lesson.widget("explore_softmax")
    logits = next_token_logits(*loaded, STORY)[0]
    bars = drawing(widget, "table")
    expect(widget).to_contain_text(told_of(filtered_choice(logits)))
    height = bars.bounding_box()["height"]

    temperature = handles(widget, "Temperature")
    moves = [lambda: press(temperature, "ArrowRight")] * 8
    moves += [lambda: press(temperature, "ArrowLeft")] * 12
    follow("the temperature slider", lesson.time_moves(bars, moves))
    settings = {"temperature": 10**-0.2}
    expect(widget).to_contain_text(told_of(filtered_choice(logits, **settings)))

    press(handles(widget, "Top-k (0: all)"), *["ArrowRight"] * 6)
    settings["top_k"] = 6
    expect(widget).to_contain_text(told_of(filtered_choice(logits, **settings)))
    press(handles(widget, "Top-p (1: all)"), *["ArrowLeft"] * 4)
    settings["top_p"] = 0.96
    expect(widget).to_contain_text(told_of(filtered_choice(logits, **settings)))
    press(handles(widget, "Min-p (0: all)"), *["ArrowRight"] * 3)
    settings["min_p"] = 0.03
    choice = filtered_choice(logits, **settings)
    expect(widget).to_contain_text(told_of(choice))

    best = logits.softmax(dim=-1).topk(12).indices
    names = [visible(text) for text in token_strings(loaded[1], best)]
    rows = cells_of(bars)
    assert [row[0] for row in rows[:-1]] == names
    shown = [row[3] for row in rows[:-1]]
    assert [text == "dropped" for text in shown] == (~choice.kept[best]).tolist()
    assert "dropped" in shown and shown[0] == f"{choice.probs[best[0]]:.3f}"
    assert widget.locator("table").count() == 1
    assert bars.bounding_box()["height"] == height, "the drawing jumps"
    lesson.shoot(widget, "filtered")


# The decoding stepper.


def told_of_step(step, tokens: int) -> str:
    total = step.log_probs.sum()
    return (
        f"{tokens} new token{'s' * (tokens > 1)}. "
        f"Probability of all of them: {number(total.exp().item())} (log-probability {total:.2f})."
    )


def candidates(widget: Locator) -> Locator:
    """The buttons with the tokens to choose from, best first."""
    rows = widget.locator(".widget-hbox").filter(has=widget.page.locator("progress, .progress"))
    return rows.locator("button")


@lesson("decoding")
def test_a_click_chooses_and_steps_lead_back(lesson: LabPage, loaded, follow):
    model, tokenizer = loaded
    widget = lesson.widget("step_decoding")
    best = continue_prompt(model, tokenizer, STORY).logits.topk(8).indices.tolist()
    names = [visible(text) for text in token_strings(tokenizer, best)]
    expect(candidates(widget)).to_have_text(names)

    candidates(widget).nth(1).click()
    step = continue_prompt(model, tokenizer, STORY, best[1:2])
    expect(widget).to_contain_text(told_of_step(step, 1))
    after = [visible(text) for text in token_strings(tokenizer, step.logits.topk(8).indices)]
    expect(candidates(widget)).to_have_text(after)
    lesson.shoot(widget, "one_chosen")
    button(widget, "Step back").click()
    expect(widget).to_contain_text("No new token yet.")
    expect(candidates(widget)).to_have_text(names)

    text = widget.locator(".widget-html").first
    first = candidates(widget).first
    back = button(widget, "Step back")
    moves = [lambda: press(first, "Enter"), lambda: press(back, "Enter")] * 8
    follow("choosing a token and stepping back", lesson.time_moves(text, moves))
    expect(widget).to_contain_text("No new token yet.")


# The activation explorer.


@pytest.fixture(scope="module")
def recorded(loaded):
    model, tokenizer = loaded
    inputs = encode(model, tokenizer, RECALL)
    with record_activations(model) as activations, torch.no_grad():
        model(**inputs)
    return activations, token_strings(tokenizer, inputs["input_ids"][0])


def picked(widget: Locator) -> tuple[int, ...]:
    names = re.search(r"Picked: (.*) \(", widget.locator(".widget-html").first.inner_text())[1]
    return () if names == "none" else tuple(map(int, names.split(", ")))


@lesson("hooks")
def test_layers_by_range_steps_boxes_and_buttons(lesson: LabPage, recorded, follow):
    last = max(recorded[0])
    widget = lesson.widget("explore_activations")
    expect(widget).to_contain_text(f"You can pick layers 0 to {last}.")
    heat = drawing(widget, "table")
    low, high = handles(widget, "Range").nth(0), handles(widget, "Range").nth(1)
    moves = [lambda: press(high, "ArrowLeft")] * 3 + [lambda: press(high, "ArrowRight")] * 3
    moves += [lambda: press(low, "ArrowRight")] * 4 + [lambda: press(low, "ArrowLeft")] * 3
    moves += [lambda: press(high, "ArrowLeft")] * 2
    follow("the range of the layer picker", lesson.time_moves(heat, moves))
    assert picked(widget) == tuple(range(1, last - 1))

    every = widget.get_by_label("Every n-th")
    every.fill("2")
    every.press("Enter")
    expect(widget).to_contain_text(f"({len(range(1, last - 1, 2))} of {last + 1} layers)")
    assert picked(widget) == tuple(range(1, last - 1, 2))

    box = widget.get_by_label(str(last), exact=True)
    box.focus()
    lesson.page.keyboard.press("Space")
    expect(widget).to_contain_text(f", {last} (")
    assert picked(widget) == (*range(1, last - 1, 2), last)
    button(widget, "None").click()
    expect(widget).to_contain_text("Pick at least 1 layer for this view.")
    expect(heat).to_be_hidden()
    button(widget, "All").click()
    expect(widget).to_contain_text(f"({last + 1} of {last + 1} layers)")
    assert picked(widget) == tuple(range(last + 1))


@lesson("hooks")
def test_the_picked_layers_are_there_for_the_next_cell(lesson: LabPage, recorded):
    widget = lesson.widget("explore_activations")
    button(widget, "None").click()
    for layer in (1, 3):
        widget.get_by_label(str(layer), exact=True).check()
    expect(widget).to_contain_text("Picked: 1, 3 (2 of")
    cell = lesson.cell('print("picked layers:", picker.value)')
    cell.locator(".cm-content").click()
    lesson.page.keyboard.press("Control+Enter")
    expect(cell.locator(".jp-OutputArea-output")).to_contain_text(
        "picked layers: (1, 3)", timeout=20_000
    )
    norms = residual_norms(recorded[0], (1, 3))[:, -1]
    expect(cell.locator(".jp-OutputArea-output")).to_contain_text(f"layer 3: norm {norms[1]:.2f}")
    button(widget, "All").click()
