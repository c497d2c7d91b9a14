"""The activation explorer: norms, distances, similarities and coordinates of picked layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import ipywidgets as widgets
import torch

from tutorial_utils.draw.described import counted
from tutorial_utils.draw.html import heatmap_html, number, visible
from tutorial_utils.lessons.explorer import Explorer, LayerPicker, errors_shown, message_line
from tutorial_utils.measures import (
    largest_coordinates,
    layer_similarity,
    residual_changes,
    residual_norms,
)


def explore_activations(
    activations: Mapping[int, torch.Tensor],
    tokens: Sequence[str],
    picker: LayerPicker | None = None,
) -> Explorer:
    """Pick layers of recorded activations, a token and a view; the model does not run again.

    `activations` is what `record_activations` gave, `tokens` are the strings of its first prompt.
    A `picker` that other widgets use too can be given.
    """
    picker = LayerPicker(list(activations)) if picker is None else picker
    wide = {"width": "420px", "max_width": "100%"}
    view = widgets.Dropdown(options=list(VIEWS), description="View", layout=wide)
    places = [(f"{i}: {token!r}", i) for i, token in enumerate(tokens)]
    token = widgets.Dropdown(options=places, value=len(places) - 1, description="Token")
    leave_out = widgets.Checkbox(
        value=True, description="Leave the first token out", indent=False, layout={"width": "200px"}
    )
    drawing, message = widgets.HTML(layout={"width": "100%"}), message_line()

    def redraw(_: object = None) -> None:
        with errors_shown(message, drawings=[drawing]):
            draw, fewest, _ = VIEWS[view.value]
            if len(picker.value) < fewest:
                message.value = f"Pick at least {counted(fewest, 'layer')} for this view."
                return
            first = int(leave_out.value and len(tokens) > 1)
            drawing.value = draw(Chosen(activations, tokens, picker.value, token.value, first))

    def code() -> str:
        call = VIEWS[view.value][2].format(layers=picker.value, token=token.value)
        return f"from tutorial_utils import {call.split('(')[0]}\n\n{call}"

    for control in (picker, view, token, leave_out):
        control.observe(redraw, "value")
    redraw()
    wrap = widgets.Layout(flex_flow="row wrap", max_width="100%")
    controls = widgets.HBox([view, token, leave_out], layout=wrap)
    return Explorer(
        [picker, controls, message, drawing],
        "pick layers, a token and a view of the activations",
        code,
    )


class Chosen(NamedTuple):
    """What a view draws."""

    activations: Mapping[int, torch.Tensor]  # {layer: (batch, seq, hidden)}
    tokens: Sequence[str]  # (seq,)
    layers: Sequence[int]
    token: int  # the place of the picked token
    first: int  # the place of the first token shown

    def heatmap_by_token(self, values: torch.Tensor, rows: Sequence[str], title: str) -> str:
        """`values` `(rows, seq)`, the picked token marked."""
        marked = self.token - self.first if self.token >= self.first else None
        columns = [visible(name, 16) for name in self.tokens[self.first :]]
        shown = values[:, self.first :]
        return heatmap_html(shown, rows, columns, title=title, log=True, marked=marked)

    @property
    def names(self) -> list[str]:
        """What the picked layers are called."""
        return [f"layer {i}" for i in self.layers]

    @property
    def at_token(self) -> str:
        """Which token was picked, in words."""
        return f"at token {self.token}, {self.tokens[self.token]!r}"


def _norms(chosen: Chosen) -> str:
    title = "Norm of the residual stream, by layer and token (colours: log scale)"
    norms = residual_norms(chosen.activations, chosen.layers)
    return chosen.heatmap_by_token(norms, chosen.names, title)


def _changes(chosen: Chosen) -> str:
    names = [f"{before} → {after}" for before, after in pairwise(chosen.layers)]
    title = "Distance of each picked layer from the one before, relative to its norm (log colours)"
    changes = residual_changes(chosen.activations, chosen.layers)
    return chosen.heatmap_by_token(changes, names, title)


def _similarity(chosen: Chosen) -> str:
    similarity = layer_similarity(chosen.activations, chosen.layers, position=chosen.token)
    cells = [[f"{value:.2f}" for value in row] for row in similarity.tolist()]
    title = f"Cosine similarity between layers, {chosen.at_token}"
    return heatmap_html(similarity, chosen.names, chosen.names, title=title, text=cells)


def _coordinates(chosen: Chosen) -> str:
    places, values = largest_coordinates(chosen.activations, chosen.layers, position=chosen.token)
    cells = [
        [f"{place}: {number(value)}" for place, value in zip(*row, strict=True)]
        for row in zip(places.tolist(), values.tolist(), strict=True)
    ]
    title = f"Largest coordinates (number: value), {chosen.at_token}"
    ranks = [f"no. {rank}" for rank in range(1, places.shape[1] + 1)]
    return heatmap_html(values.abs(), chosen.names, ranks, title=title, text=cells)


# What draws a view, how many layers it takes at least, and the code that gives its numbers.
VIEWS: dict[str, tuple[Callable[[Chosen], str], int, str]] = {
    "norms": (_norms, 1, "residual_norms(activations, {layers})"),
    "distance from the layer before": (_changes, 2, "residual_changes(activations, {layers})"),
    "similarity between layers": (
        _similarity,
        2,
        "layer_similarity(activations, {layers}, position={token})",
    ),
    "largest coordinates": (
        _coordinates,
        1,
        "largest_coordinates(activations, {layers}, position={token})",
    ),
}
