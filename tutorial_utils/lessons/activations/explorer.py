"""The activation explorer of lesson 04."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import ipywidgets as widgets
import torch

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
        with errors_shown(message):
            draw, fewest = VIEWS[view.value]
            if len(picker.value) < fewest:
                message.value = f"Pick {fewest} layers or more for this view."
                return
            first = int(leave_out.value and len(tokens) > 1)
            drawing.value = draw(activations, tokens, picker.value, token.value, first)

    for control in (picker, view, token, leave_out):
        control.observe(redraw, "value")
    redraw()
    wrap = widgets.Layout(flex_flow="row wrap", max_width="100%")
    controls = widgets.HBox([view, token, leave_out], layout=wrap)
    return Explorer(
        [picker, controls, message, drawing], "pick layers, a token and a view of the activations"
    )


def _norms(activations, tokens, layers, token, first) -> str:
    norms = residual_norms(activations, layers)[:, first:]
    title = "Norm of the residual stream, by layer and token (colours: log scale)"
    return _by_token(norms, tokens, [f"layer {i}" for i in layers], token, first, title)


def _changes(activations, tokens, layers, token, first) -> str:
    changes = residual_changes(activations, layers)[:, first:]
    names = [f"{before} → {after}" for before, after in zip(layers, layers[1:])]
    title = "Distance from the picked layer before, over its norm (colours: log scale)"
    return _by_token(changes, tokens, names, token, first, title)


def _by_token(values, tokens, names, token, first, title) -> str:
    marked = token - first if token >= first else None
    columns = [visible(name, 16) for name in tokens[first:]]
    return heatmap_html(values, names, columns, title=title, log=True, marked=marked)


def _similarity(activations, tokens, layers, token, first) -> str:
    similarity = layer_similarity(activations, layers, position=token)
    cells = [[f"{value:.2f}" for value in row] for row in similarity.tolist()]
    names = [f"layer {i}" for i in layers]
    title = f"Cosine similarity between layers, at token {token}: {tokens[token]!r}"
    return heatmap_html(similarity, names, names, title=title, text=cells)


def _coordinates(activations, tokens, layers, token, first) -> str:
    places, values = largest_coordinates(activations, layers, position=token)
    cells = [
        [f"{place}: {number(value)}" for place, value in zip(*row)]
        for row in zip(places.tolist(), values.tolist())
    ]
    title = f"Largest coordinates (number: value), at token {token}: {tokens[token]!r}"
    ranks = [f"no. {rank}" for rank in range(1, places.shape[1] + 1)]
    names = [f"layer {i}" for i in layers]
    return heatmap_html(values.abs(), names, ranks, title=title, text=cells)


# What draws each view, and how many layers it needs.
VIEWS = {
    "norms": (_norms, 1),
    "distance from the layer before": (_changes, 2),
    "similarity between layers": (_similarity, 2),
    "largest coordinates": (_coordinates, 1),
}
