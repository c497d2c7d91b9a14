"""Controls for a notebook: each is a thin skin over functions of the package.

Only ipywidgets that versions 7.7 and 8 both have. A callback's error is shown in the widget, in
words, and then raised, so that tests see it too.
"""

from __future__ import annotations

import html
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import ipywidgets as widgets
import torch
import traitlets
from matplotlib.figure import Figure

from .plots import plot_layer_token_heatmap, plot_similarity
from .views import layer_similarity, residual_changes, residual_norms


class LayerPicker(widgets.VBox):
    """Pick layers of a model; `value` is the tuple of their numbers, lowest first.

    `layers` are the numbers to choose from. All of them are picked at first, or `picked`; a picked
    layer that is not among them is a ValueError.
    """

    value = traitlets.Tuple()

    def __init__(self, layers: Sequence[int], picked: Sequence[int] | None = None) -> None:
        layers = sorted(layers)
        picked = layers if picked is None else sorted(picked)
        if not set(picked) <= set(layers):
            raise ValueError(f"picked {picked}, but there are layers {layers[0]} to {layers[-1]}")
        self._list = widgets.SelectMultiple(
            options=[(f"layer {i}", i) for i in layers],
            value=picked,
            rows=min(len(layers), 9),
            description="Layers",
            layout=widgets.Layout(width="220px"),
        )
        shortcuts = {"all": layers, "none": [], "every 2nd": layers[::2]}
        shortcuts["ends"] = sorted({layers[0], layers[-1]})
        buttons = [self._button(name, numbers) for name, numbers in shortcuts.items()]
        super().__init__([self._list, widgets.HBox(buttons)])
        traitlets.dlink((self._list, "value"), (self, "value"), lambda v: tuple(sorted(v)))

    def _button(self, name: str, numbers: Sequence[int]) -> widgets.Button:
        button = widgets.Button(description=name, layout=widgets.Layout(width="80px"))
        button.on_click(lambda _: setattr(self._list, "value", tuple(numbers)))
        return button


def explore_activations(
    activations: Mapping[int, torch.Tensor],
    tokens: Sequence[str],
    picker: LayerPicker | None = None,
) -> widgets.VBox:
    """Pick layers of recorded activations and a view of them; the model does not run again.

    `activations` is what `record_activations` gave, `tokens` are the strings of its first prompt.
    A `picker` that other widgets use too can be given.
    """
    picker = LayerPicker(list(activations)) if picker is None else picker
    view = widgets.Dropdown(options=list(VIEWS), description="View")
    leave_out = widgets.Checkbox(value=True, description="leave the first token out", indent=False)
    image = widgets.Image(format="png", layout=widgets.Layout(max_width="100%"))
    message = widgets.HTML()

    def redraw(_: object = None) -> None:
        with errors_shown(message):
            fewest = 1 if view.value == "norms" else 2
            if len(picker.value) < fewest:
                message.value = f"Pick at least {fewest} of the layers for this view."
                return
            first = int(leave_out.value and len(tokens) > 1)
            image.value = png(VIEWS[view.value](activations, tokens, picker.value, first))

    for control, trait in ((picker, "value"), (view, "value"), (leave_out, "value")):
        control.observe(redraw, trait)
    redraw()
    controls = widgets.VBox([view, leave_out, message])
    return widgets.VBox([widgets.HBox([picker, controls]), image])


def _norms(activations, tokens, layers, first) -> Figure:
    return plot_layer_token_heatmap(
        residual_norms(activations, layers)[:, first:],
        tokens[first:],
        layers=layers,
        title="Norm of the residual stream, by layer and token",
        label="norm",
    )


def _changes(activations, tokens, layers, first) -> Figure:
    return plot_layer_token_heatmap(
        residual_changes(activations, layers)[:, first:],
        tokens[first:],
        layers=layers[1:],
        title="Change since the picked layer before, relative to it",
        label="relative change",
    )


def _similarity(activations, tokens, layers, first) -> Figure:
    return plot_similarity(layer_similarity(activations, layers), layers)


VIEWS = {"norms": _norms, "changes": _changes, "similarity, last token": _similarity}


def png(figure: Figure) -> bytes:
    """The figure as the bytes of a PNG, which `widgets.Image` swaps in without a jump."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


@contextmanager
def errors_shown(message: widgets.HTML) -> Iterator[None]:
    """Show an error of a callback in `message`, in words, and raise it; clear what stood there."""
    message.value = ""
    try:
        yield
    except Exception as error:
        message.value = f"<b>This did not work:</b> {html.escape(str(error))}"
        raise
