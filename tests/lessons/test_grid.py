"""A cell is picked with a click or with sliders, and all controls show the same one."""

from __future__ import annotations

import re

import pytest
import torch
from matplotlib import colormaps
from matplotlib.colors import to_hex

from explorer_parts import inside, parse, shown, words
from tutorial_utils.draw.html import GREY
from tutorial_utils.lessons.grid import PICKED, CellGrid, Look, look_of

LABELS = [["a0", "a1", "a2"], ["b0", "b1", "b2"]]


@pytest.fixture
def grid():
    grid = CellGrid("Cells", "Row", "Column")
    grid.offer(["a", "b"], ["0", "1", "2"], LABELS, (0, 1))
    grid.paint(
        "color:red", [[Look(f"order:{row}{i}", f"t{row}{i}") for i in range(3)] for row in (0, 1)]
    )
    return grid


def marked(grid) -> int:
    """Which button has the frame, from 1."""
    (style,) = [child.value for child in grid.children if PICKED in getattr(child, "value", "")]
    return int(re.search(r"nth-child\((\d+)\)", style)[1])


def everywhere(grid, label: str) -> bool:
    row, column = next((r, c) for r in (0, 1) for c in range(3) if LABELS[r][c] == label)
    return (
        grid.picked == (row, column)
        and grid.buttons.value == label
        and (grid.row.index, grid.column.index) == (row, column)
        and marked(grid) == grid.buttons.index + 1
    )


def test_row_0_is_at_the_bottom_and_each_label_has_its_look(grid):
    assert grid.buttons.options == ("b0", "b1", "b2", "a0", "a1", "a2")
    css = next(child.value for child in grid.children if "order" in getattr(child, "value", ""))
    for place, label in enumerate(grid.buttons.options, start=1):
        where = f"{'ab'.index(label[0])}{label[1]}"
        assert f"button:nth-child({place}) {{order:{where}}}" in css
        assert f'button:nth-child({place})::after {{content:"t{where}"}}' in css


def test_buttons_and_sliders_follow_each_other_and_each_pick_is_told_once(grid):
    picks = []
    grid.on_pick(lambda: picks.append(grid.picked))
    assert everywhere(grid, "a1")
    grid.buttons.value = "b2"
    assert everywhere(grid, "b2")
    grid.row.index = 0
    assert everywhere(grid, "a2")
    grid.column.index = 0
    assert everywhere(grid, "a0")
    assert picks == [(1, 2), (0, 2), (0, 0)]


def test_other_cells_are_offered_without_a_pick(grid):
    grid.on_pick(lambda: pytest.fail("nobody has picked anything"))
    for labels in (LABELS, [["x"]], LABELS):
        rows, columns = "abc"[: len(labels)], "012"[: len(labels[0])]
        grid.offer([*rows], [*columns], labels, (len(rows) - 1, len(columns) - 1))
        assert grid.buttons.value == labels[-1][-1] and grid.column.value == columns[-1]
        assert grid.picked == (len(rows) - 1, len(columns) - 1)


def test_grids_of_a_page_are_told_apart():
    one, two = (CellGrid("Cells", "Row", "Column") for _ in range(2))
    assert one.buttons._dom_classes != two.buttons._dom_classes


def test_a_table_names_its_rows_and_columns_and_words_have_no_columns(grid):
    table = CellGrid("Cells", "Row", "Column", "table")
    table.offer(["<a>", "b"], ["0", "1", "2"], LABELS, (0, 1))
    table.paint("", [[Look("", "1")] * 3] * 2)
    names = [
        words(parse(child.value))
        for child in inside(table)
        if "<div" in getattr(child, "value", "")
    ]
    assert ["b", "<a>"] in names and ["0", "1", "2"] in names
    assert "repeat(3," in shown(table) and "repeat(3," in shown(grid)
    line = CellGrid("Cells", "Row", "Column", "words")
    line.offer([""], ["0", "1", "2"], LABELS[:1], (0, 0))
    line.paint("", [[Look("", "1")] * 3])
    assert "flex-wrap:wrap" in shown(line) and "repeat" not in shown(line)


@pytest.mark.parametrize(("value", "ink"), [(0.0, "white"), (1.0, "black"), (torch.nan, "black")])
def test_a_number_is_shown_by_its_colour_and_none_by_grey(value, ink):
    color = GREY if value != value else to_hex(colormaps["viridis"](value))
    assert look_of(value, "viridis") == f"background-color:{color};color:{ink}"
