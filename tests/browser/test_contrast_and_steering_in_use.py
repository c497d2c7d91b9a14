"""The contrast and the steering explorer used as a person does, and compared with the functions."""

from __future__ import annotations

from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
from playwright.sync_api import Locator, expect

from lab_page import LabPage, button, cells_of, control, drag, drawing, handles, press, type_line
from tutorial_utils import (
    candidate_layers,
    contrast_logits,
    encode,
    find_decoder_layers,
    logit_lens,
    read_activations,
    sample_steered,
    token_strings,
)
from tutorial_utils.draw.html import visible
from tutorial_utils.lessons.contrast.explorer import contrast_at, read_contrast
from tutorial_utils.lessons.patching.explorer import STORIES, tell_steering

STORY = "One morning, Anna went to the"
TOO_LONG = "The ball is red. " * 100


def pick(widget: Locator, layers: list[int]) -> None:
    """Pick these layers and no others, with the mouse."""
    button(widget, "None").click()
    expect(widget).to_contain_text("Picked: none")
    for layer in layers:
        widget.get_by_label(str(layer), exact=True).check()
    names = ", ".join(map(str, sorted(layers)))
    expect(widget).to_contain_text(f"Picked: {names} (")


def size(drawn: Locator) -> tuple[float, float]:
    box = drawn.bounding_box()
    return box["width"], box["height"]


# The contrast explorer.


def check(widget: Locator, loaded, prompt: str, place: int, layers: list[int], alpha: float):
    """That the words and both tables are what the functions give for these settings."""
    model, tokenizer = loaded
    ids = encode(model, tokenizer, prompt)
    lens = logit_lens(model, read_activations(model, **ids))
    final, *others = (lens[i][0, place] for i in (max(lens), *layers))
    result = contrast_logits(final, dict(zip(layers, others)), alpha=alpha)
    picked, kept = int(result.layer), int(result.scores.isfinite().sum())
    first, then = (
        visible(token_strings(tokenizer, [i.argmax()])[0], 14) for i in (final, result[0])
    )
    changed = f"stays «{first}»" if first == then else f"was «{first}» and is now «{then}»"
    plausible = "1 token is" if kept == 1 else f"{kept:,} tokens are"
    expect(widget).to_contain_text(
        f"Of the candidates, layer {picked} differs most from the last layer. "
        f"{plausible} plausible. The first choice {changed}."
    )
    read = visible(token_strings(tokenizer, ids["input_ids"][0])[place])
    expect(widget).to_contain_text(f"Next after {read}, contrasted with layer {picked}")

    view = read_contrast(model, tokenizer, prompt)
    drawn = contrast_at(view, tokenizer, place, layers, alpha)[1]
    bodies = ElementTree.fromstring(drawn).findall(".//tbody")
    expected = [[["".join(c.itertext()) for c in row] for row in body] for body in bodies]
    tables = widget.locator("table")
    expect(tables).to_have_count(2)
    expect(tables.first).to_be_visible()
    expect(tables.nth(0).locator("td, tbody th")).to_have_text(
        [text for row in expected[0] for text in row]
    )
    expect(tables.nth(1).locator("td, tbody th")).to_have_text(
        [text for row in expected[1] for text in row]
    )
    parts = [row[3] for row in cells_of(tables.nth(0))]
    assert parts.count("◂ picked") == 1 and parts[::-1].index("◂ picked") == picked


@pytest.mark.parametrize("lesson", ["dola"], indirect=True)
def test_tokens_and_layers_with_the_keyboard(lesson: LabPage, loaded, follow):
    widget = lesson.widget("explore_contrast")
    low = candidate_layers(loaded[0], "low")
    count = len(read_contrast(*loaded, STORY).tokens)
    check(widget, loaded, STORY, count - 1, low, 0.1)
    tables = drawing(widget, "table")
    box = size(tables)

    token, last = handles(widget, "Token"), max(candidate_layers(loaded[0], "high")) + 1
    moves = [lambda: press(token, "ArrowLeft")] * (count - 1)
    moves += [lambda: press(token, "ArrowRight")] * 2
    free = [i for i in range(last) if i not in low]
    boxes = [widget.get_by_label(str(layer), exact=True) for layer in free]
    moves += [lambda box=box: press(box, "Space") for box in [*boxes, *boxes]]
    follow("tokens and layers of the explorer", lesson.time_moves(tables, moves))
    check(widget, loaded, STORY, 2, low, 0.1)
    assert size(tables) == box, "the drawing jumps"

    pick(widget, [1, 3, 6])
    check(widget, loaded, STORY, 2, [1, 3, 6], 0.1)
    press(token, "End")
    check(widget, loaded, STORY, count - 1, [1, 3, 6], 0.1)
    lesson.shoot(widget, "picked")
    assert size(tables) == box, "the drawing jumps"


@pytest.mark.parametrize("lesson", ["dola"], indirect=True)
def test_alpha_is_dragged_to_its_ends(lesson: LabPage, loaded):
    widget = lesson.widget("explore_contrast")
    pick(widget, [2, 4])
    press(handles(widget, "Token"), "End")
    last, alpha = len(read_contrast(*loaded, STORY).tokens) - 1, handles(widget, "alpha")
    drag(alpha, 600)
    expect(control(widget, "alpha").locator(".widget-readout")).to_have_text("1.00")
    check(widget, loaded, STORY, last, [2, 4], 1)
    expect(widget).to_contain_text("1 token is plausible. The first choice stays")
    lesson.shoot(widget, "alpha_1")
    drag(alpha, -600)
    check(widget, loaded, STORY, last, [2, 4], 0)
    lesson.shoot(widget, "alpha_0")
    press(alpha, *["ArrowRight"] * 5)  # as fast as one can
    check(widget, loaded, STORY, last, [2, 4], 0.25)
    press(alpha, *["ArrowLeft"] * 3)
    check(widget, loaded, STORY, last, [2, 4], 0.1)


@pytest.mark.parametrize("lesson", ["dola"], indirect=True)
def test_another_prompt_while_the_model_still_reads(lesson: LabPage, loaded):
    widget = lesson.widget("explore_contrast")
    pick(widget, [2, 4])
    press(handles(widget, "alpha"), "Home", *["ArrowRight"] * 2)
    typed = widget.get_by_label("Prompt")
    type_line(typed, TOO_LONG)
    expect(widget).to_contain_text("The prompt is too long: it has")
    expect(widget.locator("table").first).to_be_hidden()
    nasty = "<b>Anna</b> & Ben's é🙂"
    last = {text: encode(*loaded, text)["input_ids"].shape[1] - 1 for text in (nasty, STORY)}
    type_line(typed, nasty)
    check(widget, loaded, nasty, last[nasty], [2, 4], 0.1)
    lesson.shoot(widget, "nasty")
    type_line(typed, "The capital of France is")
    press(handles(widget, "Token"), "ArrowLeft", "ArrowLeft")
    type_line(typed, STORY)
    check(widget, loaded, STORY, last[STORY], [2, 4], 0.1)


# The steering explorer.


@pytest.fixture(scope="module")
def told(loaded) -> SimpleNamespace:
    """What the lesson's own cells make for the explorer: directions, moods and the opening."""
    return SimpleNamespace(model=loaded[0], tokenizer=loaded[1])


def learn(told: SimpleNamespace, lesson: LabPage) -> SimpleNamespace:
    if not hasattr(told, "directions"):
        told.n = len(find_decoder_layers(told.model))
        told.shown = []
        exec("import torch", vars(told))
        for begins in (
            *('happy = """', "heroes = ", "happy_words = ", "def read_stories"),
            *(
                "happy_states, sad_states = ",
                "from tutorial_utils import mean_diff",
                "directions = {",
            ),
        ):
            (source,) = [c.source for c in lesson.nb.cells if c.source.startswith(begins)]
            exec(source, vars(told))
        (told.opening,) = [
            line.split('"')[1]
            for cell in lesson.nb.cells
            for line in cell.source.split("\n")
            if line.startswith("opening = ")
        ]
    return told


def check_texts(widget: Locator, told, layers: list[int], strength: float, opening: str) -> None:
    """That the table is what `sample_steered` gives, without and with."""
    both = [{}, {i: told.directions[i] for i in layers if strength}]
    options = {"seed": [*range(STORIES)]}
    both = [
        sample_steered(told.model, told.tokenizer, [opening] * STORIES, chosen, strength, **options)
        for chosen in both
    ]
    expect(widget.locator("th").nth(1)).to_have_text(tell_steering(layers, strength))
    pairs = zip(*(zip(samples.texts, samples.losses.tolist()) for samples in both))
    expect(widget.locator("td")).to_have_text(
        [
            f"{text.strip() or '(nothing)'}{told.mood(text)}, loss {loss:.2f} nats per token"
            for pair in pairs
            for text, loss in pair
        ]
    )
    expect(widget).not_to_contain_text("The model writes")
    expect(widget.locator("table")).to_be_visible()


@pytest.mark.parametrize("lesson", ["steering"], indirect=True)
def test_texts_follow_the_strength(lesson: LabPage, told, follow):
    widget = lesson.widget("explore_steering")
    learn(told, lesson)
    middle = sorted(told.directions)[len(told.directions) // 2]
    check_texts(widget, told, [middle], 2, told.opening)
    table, strength = drawing(widget, "table"), handles(widget, "Strength")
    box = size(table)
    press(strength, "Home")
    check_texts(widget, told, [middle], -6, told.opening)
    # No strength twice but 2: what was written once is kept, and comes sooner.
    moves = [lambda: press(strength, "ArrowRight")] * 20
    times = lesson.time_moves(table, moves)
    check_texts(widget, told, [middle], 4, told.opening)
    again = lesson.time_moves(table, [lambda: press(strength, "ArrowLeft")] * 16)
    check_texts(widget, told, [middle], -4, told.opening)
    follow("a strength that was there before", again)
    follow("another strength in the steering explorer", times)
    assert size(table) == box, "the table jumps"
    lesson.shoot(widget, "steered")


@pytest.mark.parametrize("lesson", ["steering"], indirect=True)
def test_layers_and_the_ends_of_the_strength(lesson: LabPage, told):
    widget = lesson.widget("explore_steering")
    first, *_, last = sorted(learn(told, lesson).directions)
    strength = handles(widget, "Strength")
    pick(widget, [4, 6])
    press(strength, "Home")
    check_texts(widget, told, [4, 6], -6, told.opening)
    box = size(drawing(widget, "table"))
    drag(strength, 600)
    check_texts(widget, told, [4, 6], 6, told.opening)
    lesson.shoot(widget, "extreme")
    button(widget, "All").click()
    check_texts(widget, told, [*range(first, last + 1)], 6, told.opening)
    lesson.shoot(widget, "all_layers")
    button(widget, "None").click()
    check_texts(widget, told, [], 6, told.opening)
    widget.get_by_label(str(last), exact=True).focus()
    lesson.page.keyboard.press("Space")
    check_texts(widget, told, [last], 6, told.opening)
    press(strength, *["ArrowLeft"] * 12)  # as fast as one can
    check_texts(widget, told, [last], 0, told.opening)
    assert size(drawing(widget, "table")) == box, "the table jumps"
    lesson.shoot(widget, "nothing_added")


@pytest.mark.parametrize("lesson", ["steering"], indirect=True)
def test_another_beginning_while_the_model_still_writes(lesson: LabPage, told):
    widget = lesson.widget("explore_steering")
    learn(told, lesson)
    pick(widget, [6])
    typed, strength = widget.get_by_label("Beginning"), handles(widget, "Strength")
    press(strength, "End")
    type_line(typed, "<b>Anna</b> & Ben's é🙂")
    press(strength, "ArrowLeft", "ArrowLeft")
    type_line(typed, told.opening)
    press(strength, "ArrowLeft", "ArrowLeft")
    check_texts(widget, told, [6], 4, told.opening)
