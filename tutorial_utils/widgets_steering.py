"""The steering explorer of lesson 07: a skin over `sample_steered`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import ipywidgets as widgets
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .html_views import steering_table
from .steering import Samples, sample_steered
from .widgets_shared import Explorer, LayerPicker, errors_shown

STORIES = 3


def explore_steering(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    directions: Mapping[int, Tensor],
    prompt: str,
    *,
    picker: LayerPicker | None = None,
    describe: Callable[[str], str] | None = None,
) -> Explorer:
    """Pick layers and a strength, and see texts without and with steering, side by side.

    directions: {layer: (hidden,)}, as `mean_differences` gives; with several layers picked, each
        adds its own. `prompt` is the beginning at first, and can be typed over.
    A `picker` that other widgets use too can be given. `describe` is as in `steering_table`.
    """
    middle = sorted(directions)[len(directions) // 2]
    picker = LayerPicker(list(directions), picked=[middle]) if picker is None else picker
    strength = widgets.FloatSlider(
        value=2, min=-6, max=6, step=0.5, description="Strength", continuous_update=False
    )
    wide = widgets.Layout(width="100%", max_width="420px")
    start = widgets.Text(
        value=prompt, description="Beginning", continuous_update=False, layout=wide
    )
    message, table = widgets.HTML(), widgets.HTML()
    unsteered: dict[str, Samples] = {}

    def sample(layers: tuple[int, ...]) -> Samples:
        if not set(layers) <= set(directions):
            raise ValueError(f"layers {layers} are picked; directions are for {[*directions]}")
        chosen = {layer: directions[layer] for layer in layers}
        prompts = [start.value] * STORIES
        return sample_steered(model, tokenizer, prompts, chosen, strength.value)

    def redraw(_: object = None) -> None:
        with errors_shown(message):
            if not start.value:
                message.value = "Type the beginning of a story."
                return
            message.value = "Writing…"  # a large model takes a while
            if start.value not in unsteered:  # sampled once for each beginning
                unsteered.clear()
                unsteered[start.value] = sample(())
            without = unsteered[start.value]
            steered = sample(picker.value) if picker.value and strength.value else without
            table.value = steering_table(without, steered, describe)
            message.value = ""

    for control, trait in ((picker, "value"), (strength, "value"), (start, "value")):
        control.observe(redraw, trait)
    redraw()
    controls = widgets.VBox([start, strength, message])
    parts = [widgets.VBox([picker, controls]), table]
    return Explorer(parts, "pick layers and a strength, and see how the texts change")
