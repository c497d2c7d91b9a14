"""A grid of cells, for the maps of the explorers: one of them is picked with mouse or keyboard.

It is one `ToggleButtons` that CSS lays out and colours. So a map of 1,024 heads is one widget too.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, NamedTuple

import ipywidgets as widgets
from matplotlib import colormaps
from matplotlib.colors import to_hex

from tutorial_utils.draw.html import GREY, MONO, ink_on
from tutorial_utils.lessons.explorer import SYNC_WHILE_DRAGGING

PICKED = "#D55E00"  # the frame of what is picked
WIDTH, HEIGHT = 46, 24  # pixels of a cell of a table
FORMS = {  # the CSS of the box of all cells; in a table their labels are not seen
    "map": "display:grid;justify-content:start;grid-template-columns:repeat({columns},auto)",
    "words": "display:flex;flex-wrap:wrap",
    "table": f"display:grid;justify-content:start;grid-auto-rows:{HEIGHT}px;"
    f"grid-template-columns:repeat({{columns}},{WIDTH}px)",
}
_numbers = count(1)  # tells the grids of a page apart


class Look(NamedTuple):
    """How a cell looks: its CSS, the plain text under its label, the CSS of the picture above."""

    css: str
    text: str
    picture: str = ""


class CellGrid(widgets.VBox):
    """Cells in rows and columns; `picked` is the (row, column) of one of them.

    Row 0 is at the bottom, like layer 0 in the figures. A cell is picked with a click, or with the
    sliders `row` and `column`, which the explorer puts in their place. `form` is "map"; "table",
    with the names of rows and columns beside the cells and no labels in them; or "words", which
    takes as many lines as the labels need.
    """

    picked = (0, 0)

    def __init__(self, name: str, row: str, column: str, form: str = "map") -> None:
        self.buttons = widgets.ToggleButtons(options=[" "], description=name)
        self.row, self.column = (
            widgets.SelectionSlider(
                options=[" "], description=text, continuous_update=SYNC_WHILE_DRAGGING
            )
            for text in (row, column)
        )
        self._name, self._busy, self._form = f"cells{next(_numbers)}", False, form
        self._looks, self._mark = (widgets.HTML(layout={"display": "none"}) for _ in range(2))
        self._rows, self._columns = (widgets.HTML(layout={"margin": "0"}) for _ in range(2))
        self.buttons.add_class(self._name)
        cells: widgets.Widget = self.buttons
        if form == "table":
            self.buttons.layout.margin = "0"
            self._columns.add_class(f"{self._name}-names")
            right = widgets.VBox([cells, self._columns], layout={"overflow": "visible"})
            cells = widgets.HBox([self._rows, right], layout={"overflow": "visible"})
            cells.layout.flex = "none"  # too wide, it is scrolled and not made narrower
        box = {"overflow": "auto", "max_width": "100%", "max_height": "600px"}
        if form != "words":
            box["flex_flow"] = "column-reverse"  # it begins at the bottom, where row 0 is
        super().__init__([cells, self._looks, self._mark], layout=widgets.Layout(**box))
        self.buttons.observe(self._from_buttons, "index")
        for slider in (self.row, self.column):
            slider.observe(self._from_sliders, "index")
        self._told: Callable[[], None] = lambda: None

    def on_pick(self, callback: Callable[[], None]) -> None:
        """Call this each time the reader picks a cell. `offer` does not count as a pick."""
        self._told = callback

    def offer(
        self,
        rows: Sequence[str],
        columns: Sequence[str],
        labels: Sequence[Sequence[str]],
        picked: tuple[int, int],
    ) -> None:
        """Offer other cells. `rows` and `columns` name them on the sliders. Labels must differ."""
        self._busy = True
        try:
            self.row.options, self.column.options = rows, columns
            self.buttons.options = [label for row in reversed(labels) for label in row]
            self._rows.value, self._columns.value = _axes(rows, columns)
        finally:
            self._busy = False
        self._follow(picked)

    def paint(self, css: str, cells: Sequence[Sequence[Look]], picture: str = "") -> None:
        """Colour the cells, write a text under each label, and put a picture above it.

        `css` is that of all cells, `picture` that of the box above all labels.
        """
        box, label = FORMS[self._form].format(columns=len(cells[0])), "font-weight:bold"
        if self._form == "table":
            css, label = f"font-size:0;{css}", "display:none"
        rules = [
            f"{self._all} {{flex-direction:column;overflow:visible;width:auto;height:auto}}",
            f"{self._all} > label {{width:auto;text-align:left;{label}}}",
            f"{self._all} > div {{gap:3px;padding:4px;{box}}}",
            f"{self._all} button {{width:auto;height:auto;margin:0;padding:2px 4px;{MONO};"
            f"line-height:1.3;overflow:visible;{css}}}",
            f".{self._name}-names {{position:sticky;bottom:0;"
            "background:var(--jp-layout-color0,white)}",
            f"{self._all} button::after {{display:block;text-align:center;font-size:12px}}",
        ]
        if picture:
            rules.append(f'{self._all} button::before {{content:"";display:block;{picture}}}')
        looks = [look for row in reversed(cells) for look in row]
        for place, look in enumerate(looks, start=1):
            rules.append(f"{self._cell(place)} {{{look.css}}}")
            rules.append(f'{self._cell(place)}::after {{content:"{look.text}"}}')
            if look.picture:
                rules.append(f"{self._cell(place)}::before {{{look.picture}}}")
        self._looks.value = f"<style>{''.join(rules)}</style>"

    @property
    def _all(self) -> str:
        return f".{self._name}.{self._name}"  # twice: it goes before what ipywidgets says

    def _cell(self, number: int) -> str:
        return f"{self._all} button:nth-child({number})"

    def _from_buttons(self, change: Any) -> None:
        if not self._busy:
            row, column = divmod(change.new, len(self.column.options))
            self._follow((len(self.row.options) - 1 - row, column))
            self._told()

    def _from_sliders(self, _: Any) -> None:
        if not self._busy:
            self._follow((self.row.index, self.column.index))
            self._told()

    def _follow(self, picked: tuple[int, int]) -> None:
        """Make the buttons, the sliders and the frame show the picked cell."""
        self.picked, self._busy = picked, True
        try:
            self.row.index, self.column.index = picked
            row = len(self.row.options) - 1 - picked[0]
            self.buttons.index = row * len(self.column.options) + picked[1]
            frame = f"outline:3px solid {PICKED};outline-offset:0"
            cell = self._cell(self.buttons.index + 1)
            self._mark.value = f"<style>{cell} {{{frame}}}</style>"
        finally:
            self._busy = False


def _axes(rows: Sequence[str], columns: Sequence[str]) -> tuple[str, str]:
    """The names of a table's rows, the first at the bottom, and of its columns, as HTML."""
    left = "".join(f"<div>{html.escape(name)}</div>" for name in reversed(rows))
    below = "".join(
        f'<div style="width:{WIDTH}px;line-height:{WIDTH}px;writing-mode:vertical-rl">'
        f"{html.escape(name)}</div>"
        for name in columns
    )
    css = f"display:grid;gap:3px;padding:4px;white-space:pre;{MONO}"
    return (
        f'<div style="{css};grid-auto-rows:{HEIGHT}px;line-height:{HEIGHT}px;text-align:right">'
        f"{left}</div>",
        f'<div style="{css};grid-template-columns:repeat({len(columns)},{WIDTH}px)">{below}</div>',
    )


def look_of(value: float, colors: str) -> str:
    """CSS of a cell that shows a number from 0 to 1 by its colour."""
    color = shade(value, colors)
    return f"background-color:{color};color:{ink_on(color)}"


def shade(value: float, colors: str) -> str:
    """The colour of a number from 0 to 1; grey for nan."""
    return GREY if value != value else to_hex(colormaps[colors](value))
