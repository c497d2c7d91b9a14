"""The steering explorer: what `sample_steered` gives for the layers and the strength picked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import perf_counter

import ipywidgets as widgets
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tutorial_utils.decoding import encode
from tutorial_utils.lessons.explorer import (
    Explorer,
    LayerPicker,
    errors_shown,
    escape,
    message_line,
)
from tutorial_utils.lessons.prompt import check_text, prompt_field, tell_mistake
from tutorial_utils.steering import Samples, sample_steered


def steering_table(
    without: Samples,
    steered: Samples,
    describe: Callable[[str], str] | None = None,
    *,
    title: str = "steered",
) -> str:
    """HTML: each text without steering beside the one with it, and each one's loss under it.

    `describe` gives a word or two about a text, such as its mood, to stand beside the loss. `title`
    stands above the steered texts. Rows are equally high, for up to three lines of text.
    """
    style = "text-align: left; vertical-align: top; line-height: 1.4; padding: 2px 16px 2px 4px"

    def cell(text: str, loss: float) -> str:
        about = f"{escape(describe(text))}, " if describe else ""
        return (
            f'<td style="{style}; height: 5.8em">'
            f"{escape(text.strip()) or '(nothing)'}<br>"
            f"<small>{about}loss {loss:.2f} nats per token</small></td>"
        )

    rows = zip(
        zip(without.texts, without.losses.tolist(), strict=True),
        zip(steered.texts, steered.losses.tolist(), strict=True),
        strict=True,
    )
    body = "".join(f"<tr>{cell(*left)}{cell(*right)}</tr>" for left, right in rows)
    names = ("without steering", escape(title))
    head = "".join(f'<th style="{style}">{name}</th>' for name in names)
    return f'<table style="width: 100%; table-layout: fixed"><tr>{head}</tr>{body}</table>'


CODE = """from tutorial_utils import sample_steered

chosen = {{layer: directions[layer] for layer in {layers}}}
prompts, seeds = [{prompt!r}] * {count}, list(range({count}))
sample_steered(model, tokenizer, prompts, chosen, {by:g}, seed=seeds)"""
STORIES = 3  # texts without and with, side by side
SHOW_BUSY_AFTER_S = 0.3  # show "The model writes …" only if the last generation took longer


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

    `directions` are {layer: (hidden,)}, as `mean_differences` gives; with several layers picked,
    each adds its own. `prompt` is what the field "Beginning" holds at the start;
    the reader can type over it.
    A `picker` that other widgets use too can be given. `describe` is as in `steering_table`.
    """
    middle = sorted(directions)[len(directions) // 2]
    picker = LayerPicker(list(directions), picked=[middle]) if picker is None else picker
    strength = widgets.FloatSlider(
        value=2, min=-6, max=6, step=0.5, description="Strength", continuous_update=False
    )
    start = prompt_field(prompt, "Beginning", "min(100%, 420px)")
    message, table = message_line(), widgets.HTML(layout=widgets.Layout(width="100%"))
    took = SHOW_BUSY_AFTER_S  # seconds, the last time that the model wrote
    made: dict[tuple, Samples] = {}  # by beginning, layers and strength

    def write(layers: tuple[int, ...], by: float) -> tuple[Samples, Samples]:
        """The texts without steering and with it; those that are missing share a batch."""
        nonlocal took
        plain = (start.value,)
        wanted = (start.value, layers, by) if layers and by else plain
        missing = [key for key in dict.fromkeys((plain, wanted)) if key not in made]
        if missing:
            check_text(start.value)
            encode(model, tokenizer, start.value)  # its errors speak of one prompt, not of three
            begun = perf_counter()
            # in a row without steering, 0 times each direction is added
            times = torch.tensor([key != plain for key in missing]).repeat_interleave(STORIES)
            chosen = {i: directions[i] * times[:, None, None].to(directions[i]) for i in layers}
            prompts, seeds = [start.value] * len(times), [*range(STORIES)] * len(missing)
            samples = sample_steered(model, tokenizer, prompts, chosen, by, seed=seeds)
            for k, key in enumerate(missing):
                part = slice(k * STORIES, (k + 1) * STORIES)
                made[key] = Samples(samples.texts[part], samples.losses[part])
            took = perf_counter() - begun
        return made[plain], made[wanted]

    def redraw(_: object = None) -> None:
        busy = "The model writes …" if took >= SHOW_BUSY_AFTER_S else ""
        with errors_shown(message, busy, [table]):
            if not start.value:
                message.value = "Type the beginning of a story."
                return
            if not set(picker.value) <= set(directions):
                raise ValueError(
                    f"layers {picker.value} are picked; directions are for {[*directions]}"
                )
            try:
                without, steered = write(picker.value, strength.value)
            except ValueError as error:  # too long
                tell_mistake(message, error)
                return
            title = tell_steering(picker.value, strength.value)
            table.value = steering_table(without, steered, describe, title=title)

    def code() -> str:
        layers = picker.value if strength.value else ()
        return CODE.format(layers=layers, prompt=start.value, count=STORIES, by=strength.value)

    for control in (picker, strength, start):
        control.observe(redraw, "value")
    redraw()
    controls = widgets.VBox([start, strength, message])
    parts = [widgets.VBox([picker, controls]), table]
    return Explorer(parts, "pick layers and a strength, and see how the texts change", code)


def tell_steering(layers: Sequence[int], strength: float) -> str:
    """What was added where, in words."""
    if not layers or not strength:
        return "steered: nothing is added"
    names = ", ".join(map(str, layers))
    return f"steered: strength {strength:g} at layer{'s' if len(layers) > 1 else ''} {names}"
