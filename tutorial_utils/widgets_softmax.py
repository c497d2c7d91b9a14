"""The softmax explorer of lesson 02."""

from __future__ import annotations

from collections.abc import Mapping

import ipywidgets as widgets
import torch
from transformers import PreTrainedTokenizerBase

from .decoding import token_strings
from .html_views import choice_html
from .token_views import FilteredChoice, filtered_choice
from .widgets_shared import Explorer, errors_shown, message_line


def explore_softmax(
    logits: Mapping[str, torch.Tensor], tokenizer: PreTrainedTokenizerBase, *, k: int = 12
) -> Explorer:
    """Move temperature, top-k, top-p and min-p; bars, kept mass and entropy follow.

    `logits` are the next-token logits `(vocab,)` of one or more prompts, by prompt. The bars are of
    the `k` tokens that the model itself finds most probable. The model does not run again.
    """
    if not logits:
        raise ValueError("there are no logits: give at least one {prompt: logits (vocab,)}")
    layout = {"width": "440px", "max_width": "100%"}
    wide = {"style": {"description_width": "130px"}, "layout": layout}
    prompt = widgets.Dropdown(options=list(logits), description="Prompt", **wide)
    temperature = widgets.FloatLogSlider(
        value=1.0, min=-1, max=1, step=0.05, readout_format=".2f", description="Temperature", **wide
    )
    top_k = widgets.IntSlider(value=0, min=0, max=50, description="Top-k (0: all)", **wide)
    top_p = widgets.FloatSlider(
        value=1.0, min=0.05, max=1, step=0.01, description="Top-p (1: all)", **wide
    )
    min_p = widgets.FloatSlider(
        value=0.0, min=0, max=1, step=0.01, description="Min-p (0: all)", **wide
    )
    start = widgets.Button(description="Start again", tooltip="temperature 1, no filters")
    told, bars, message = widgets.HTML(), widgets.HTML(), message_line()
    sliders = [temperature, top_k, top_p, min_p]
    resting = [slider.value for slider in sliders]

    def redraw(_: object = None) -> None:
        with errors_shown(message):
            row = logits[prompt.value].detach().float().cpu()
            choice = filtered_choice(
                row,
                temperature=temperature.value,
                top_k=top_k.value or None,
                top_p=top_p.value,
                min_p=min_p.value,
            )
            probs = row.softmax(dim=-1)
            best = probs.topk(min(k, len(probs))).indices
            told.value = tell_choice(choice)
            bars.value = choice_html(probs, choice, token_strings(tokenizer, best), best)

    def start_again(_: object) -> None:
        for slider, value in zip(sliders, resting, strict=True):
            slider.value = value

    for control in (prompt, *sliders):
        control.observe(redraw, "value")
    start.on_click(start_again)
    redraw()
    return Explorer(
        [prompt, *sliders, start, told, bars, message],
        "move temperature, top-k, top-p and min-p, bars follow",
    )


def tell_choice(choice: FilteredChoice) -> str:
    """How much the filters keep, and the entropy of what is left, in one line of HTML."""
    return (
        f"Kept: <b>{int(choice.kept.sum()):,}</b> of {len(choice.probs):,} tokens, with "
        f"<b>{choice.mass:.3f}</b> of the probability. Entropy of what is drawn from: "
        f"<b>{choice.bits:.2f}</b> bits."
    )
