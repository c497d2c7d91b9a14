"""The activation explorer: each view is what its function gives for the picked layers and token."""

from __future__ import annotations

import ipywidgets as widgets
import pytest
import torch

from explorer_parts import find, inside, rows_of, shown
from tutorial_utils import encode, read_activations, token_strings
from tutorial_utils.draw.html import GREY, number
from tutorial_utils.lessons.activations.explorer import explore_activations
from tutorial_utils.lessons.explorer import LayerPicker
from tutorial_utils.measures import (
    largest_coordinates,
    layer_similarity,
    residual_changes,
    residual_norms,
)


@pytest.fixture(scope="module")
def recorded(tiny):
    model, tokenizer = tiny
    inputs = encode(model, tokenizer, "Anna has the red ball.")
    tokens = token_strings(tokenizer, inputs["input_ids"][0])
    return read_activations(model, **inputs), tokens


def test_every_view_is_what_its_function_gives(recorded):
    activations, layers, token = recorded[0], (0, 2, 3), 2
    explorer = explore_activations(*recorded)
    explorer.children[0].value = layers
    find(explorer, "Token").value = token
    find(explorer, "Leave the first token out").value = False
    similarity = layer_similarity(activations, layers, position=token).tolist()
    largest = largest_coordinates(activations, layers, position=token)
    pairs = [zip(*row, strict=True) for row in zip(*(part.tolist() for part in largest))]
    names = [f"layer {i}" for i in layers]
    for view, lines, cells in [
        ("norms", names, residual_norms(activations, layers).tolist()),
        (
            "distance from the layer before",
            ["0 → 2", "2 → 3"],
            residual_changes(activations, layers).tolist(),
        ),
        ("similarity between layers", names, [[f"{v:.2f}" for v in row] for row in similarity]),
        ("largest coordinates", names, [[f"{i}: {number(v)}" for i, v in row] for row in pairs]),
    ]:
        find(explorer, "View").value = view
        texts = [[cell if isinstance(cell, str) else number(cell) for cell in row] for row in cells]
        assert (
            rows_of(table_of(explorer))
            == [[name, *row] for name, row in zip(lines, texts, strict=True)][::-1]
        )
    find(explorer, "View").value = "norms"
    find(explorer, "Leave the first token out").value = True
    assert len(rows_of(table_of(explorer))[0]) == len(recorded[1])  # a name, and one token less


def table_of(explorer) -> str:
    (table,) = [html for widget in inside(explorer) if "<table" in (html := own_html(widget))]
    return table


def own_html(widget) -> str:
    return widget.value if isinstance(widget, widgets.HTML) else ""


def test_too_few_layers_is_a_hint_and_shows_no_other_layers(recorded):
    explorer = explore_activations(*recorded)
    find(explorer, "None").click()
    assert "Pick at least 1 layer for" in shown(explorer) and "<table" not in shown(explorer)
    find(explorer, "View").value = "similarity between layers"
    find(explorer, "2").value = True
    assert "Pick at least 2 layers for" in shown(explorer)
    find(explorer, "3").value = True
    assert "Pick" not in shown(explorer).replace("Picked", "") and "<table" in shown(explorer)


def test_one_picker_serves_two_widgets(recorded):
    picker = LayerPicker(list(recorded[0]))
    two = [explore_activations(*recorded, picker) for _ in range(2)]
    picker.value = (1, 2)
    assert all("layer 2" in shown(w) and "layer 3" not in shown(w) for w in two)


@pytest.mark.parametrize(
    ("view", "said", "grey"),
    [
        ("norms", "nan", 1),
        ("distance from the layer before", "nan", 2),  # from it, and to it
        ("similarity between layers", "nan", 9),  # a row and a column of five
        ("largest coordinates", ": nan", 6),
    ],
)
def test_activations_that_are_not_finite_are_seen_in_every_view(recorded, view, said, grey):
    activations = {i: stream.clone() for i, stream in recorded[0].items()}
    activations[2][0, 3] = torch.nan
    explorer = explore_activations(activations, recorded[1])
    find(explorer, "Token").value = 3
    find(explorer, "View").value = view
    cells = [cell for cell in shown(explorer).split("<td ") if GREY in cell]
    assert len(cells) == grey and all(f"{said}</span>" in cell for cell in cells)
