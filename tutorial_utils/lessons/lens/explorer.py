"""The lens explorer of lesson 05: a prompt, the first choice of each layer, five best of a cell.

Plain HTML tables and core controls: point at a cell to see its five best, or pick it with two
sliders. The model runs once for each prompt.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from itertools import count
from typing import NamedTuple

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.colors import to_hex
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tutorial_utils.activations.record_and_edit import read_activations
from tutorial_utils.decoding import encode, token_strings
from tutorial_utils.draw.html import MONO, probability, visible
from tutorial_utils.lens import lens_choices
from tutorial_utils.lessons.explorer import (
    SET_FROM_HERE,
    Explorer,
    LayerPicker,
    errors_shown,
    message_line,
    prompt_field,
    readable,
    set_tokens,
    token_slider,
)

MOST_TOKENS = 40  # columns of the table
_numbers = count(1)  # tells the tables of a page apart


class LensView(NamedTuple):
    """What one run of the model gives the explorer, for the last `MOST_TOKENS` tokens."""

    tokens: list[str]  # (seq,)
    probs: torch.Tensor  # (layers, seq, 5)
    choices: list[list[list[str]]]  # (layers, seq, 5)
    left_out: int  # tokens before these


def read_lens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str) -> LensView:
    """Run the model on the prompt, and look at each layer and token through the lens."""
    inputs = encode(model, tokenizer, prompt)
    seq = inputs["input_ids"].shape[1]
    shown = range(max(0, seq - MOST_TOKENS), seq)
    probs, ids = lens_choices(model, read_activations(model, **inputs, positions=shown))
    known = ids.unique()
    name = dict(zip(known.tolist(), token_strings(tokenizer, known), strict=True))
    choices = [[[name[i] for i in cell] for cell in row] for row in ids[:, 0].tolist()]
    tokens = token_strings(tokenizer, inputs["input_ids"][0, shown.start :])
    return LensView(tokens, probs[:, 0], choices, shown.start)


def lens_table(view: LensView, layers: Sequence[int], name: str = "lens") -> str:
    """An HTML table of first choices, the last of `layers` at the top; pointing shows five best."""
    heads = "".join(f"<th title='{_html(token)}'>{_cut(token)}</th>" for token in view.tokens)
    rows = []
    for layer in sorted(layers, reverse=True):
        cells = "".join(_cell(view, layer, place) for place in range(len(view.tokens)))
        rows.append(f"<tr><th>layer {layer}</th>{cells}</tr>")
    left_out = f"The first {view.left_out} tokens are left out." if view.left_out else ""
    look = f".{name} td, .{name} th {{padding: 2px 5px; text-align: center; white-space: pre}}"
    return (
        f"<style>{look}</style><div style='overflow-x: auto' tabindex='0'>"
        f"<table class='{name}' style='{MONO}; line-height: 1.5'>"
        f"<thead><tr><th>token read</th>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
        f"</div>{left_out}"
    )


def best_five(view: LensView, layer: int, place: int) -> str:
    """The five best of one cell as HTML: bars with their probabilities."""
    rows, probs = [], view.probs[layer, place].tolist()
    for choice, prob in zip(view.choices[layer][place], probs, strict=True):
        bar = f"<div style='background: #0072B2; height: 0.9em; width: {240 * prob:.0f}px'></div>"
        cells = f"<code>{_html(choice)}</code>", probability(prob), bar
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    said = f"Layer {layer}, after <code>{_html(view.tokens[place])}</code>: the five best"
    return f"<b>{said}</b><table>{''.join(rows)}</table>"


def explore_lens(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    picker: LayerPicker | None = None,
) -> Explorer:
    """Type a prompt and see each layer's first choice after each token, and the five best of one.

    A `picker` of layers that other widgets use too can be given; it says which rows are shown.
    """
    view = read_lens(model, tokenizer, prompt)
    picker = LayerPicker(range(len(view.probs))) if picker is None else picker
    name = f"lens{next(_numbers)}"
    text = prompt_field(prompt)
    layer = widgets.SelectionSlider(
        options=range(len(view.probs)), description="Layer", continuous_update=SET_FROM_HERE
    )
    token = token_slider(view.tokens)
    message = message_line()
    table, mark, best = (widgets.HTML(layout={"max_width": "100%"}) for _ in range(3))

    refused = False  # whether the prompt was; until another is typed, the message says why

    def read(_: object) -> None:
        nonlocal view, refused
        with errors_shown(message, "The model reads the prompt …"):
            refused = not readable(model, tokenizer, text.value, message)
            if refused:
                return
            view = read_lens(model, tokenizer, text.value)
            show_table()

    def show_table(_: object = None) -> None:
        if refused:
            return
        with errors_shown(message):
            rows = [i for i in picker.value if i < len(view.probs)]
            if not rows:
                message.value = "Pick at least one of the layers."
                return
            table.value = lens_table(view, rows, name)
            # Setting options moves a slider to its first one: the cell is shown after both.
            for control in (layer, token):
                control.unobserve(show_cell, "value")
            kept = layer.value if layer.value in rows else rows[-1]
            layer.options, layer.value = rows, kept
            set_tokens(token, view.tokens)
            for control in (layer, token):
                control.observe(show_cell, "value")
            show_cell()

    def show_cell(_: object = None) -> None:
        if refused:
            return
        with errors_shown(message):
            row = len(layer.options) - layer.index  # the last layer is at the top
            place = f".{name} tbody tr:nth-child({row}) td:nth-child({token.index + 2})"
            mark.value = f"<style>{place} {{outline: 3px solid #D55E00}}</style>"
            best.value = best_five(view, layer.value, token.value)

    text.observe(read, "value")
    picker.observe(show_table, "value")
    for control in (layer, token):
        control.observe(show_cell, "value")
    layer.value = layer.options[-1]
    show_table()
    sliders = widgets.HBox([layer, token], layout=widgets.Layout(flex_flow="row wrap"))
    does = "type a prompt, see each layer's first choices, pick one for its five best"
    return Explorer([text, picker, message, table, mark, sliders, best], does)


def _cell(view: LensView, layer: int, place: int) -> str:
    choices, probs = view.choices[layer][place], view.probs[layer, place].tolist()
    pairs = zip(choices, map(probability, probs), strict=True)
    five = "&#10;".join(f"{prob}  {_html(choice)}" for choice, prob in pairs)
    color = colormaps["viridis"](probs[0])
    ink = "black" if np.dot(color[:3], [0.3, 0.6, 0.1]) > 0.4 else "white"
    look = f"background: {to_hex(color)}; color: {ink}"
    return f"<td style='{look}' title='{five}'>{_cut(choices[0])}</td>"


def _html(token: str) -> str:
    return html.escape(visible(token))


def _cut(token: str, most: int = 12) -> str:
    return html.escape(visible(token, most))
