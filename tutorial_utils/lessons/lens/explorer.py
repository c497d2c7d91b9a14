"""The lens explorer: a prompt, each layer's first choice after each token, the five best of a cell.

Plain HTML tables and core controls: point at a cell to see its five best, or pick it with two
sliders. The model runs once for each prompt.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from itertools import count
from typing import NamedTuple

import ipywidgets as widgets
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tutorial_utils.activations.record_and_edit import read_activations
from tutorial_utils.decoding import token_strings
from tutorial_utils.draw.html import (
    OKABE_ITO,
    BarRow,
    bar_table,
    heat_cell,
    probability,
    scrolling_table,
    visible,
)
from tutorial_utils.lens import lens_choices
from tutorial_utils.lessons.explorer import SYNC_WHILE_DRAGGING, Explorer, LayerPicker
from tutorial_utils.lessons.prompt import (
    PromptReader,
    encode_last,
    set_tokens,
    tell_left_out,
    token_slider,
)

CODE = """from tutorial_utils import encode, lens_choices, read_activations, token_strings

inputs = encode(model, tokenizer, {prompt!r})
probs, ids = lens_choices(model, read_activations(model, **inputs))  # (layers, batch, seq, 5)
best, shares = ids[{layer}, 0, {place}], probs[{layer}, 0, {place}]
list(zip(token_strings(tokenizer, best), shares.tolist()))"""
_numbers = count(1)  # tells the tables of a page apart


class LensView(NamedTuple):
    """What one run of the model gives the explorer, for the last tokens of the prompt."""

    tokens: list[str]  # (seq,)
    probs: torch.Tensor  # (layers, seq, 5)
    choices: list[list[list[str]]]  # (layers, seq, 5); "nan" where the probability is
    left_out: int  # tokens before these


def read_lens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str) -> LensView:
    """Run the model on the prompt, and look at each layer and token through the lens."""
    inputs, positions, tokens = encode_last(model, tokenizer, prompt)
    probs, ids = lens_choices(model, read_activations(model, **inputs, positions=positions))
    probs, ids = probs[:, 0], ids[:, 0].masked_fill(probs[:, 0].isnan(), -1)
    known = ids.unique()
    name = dict(zip(known.tolist(), token_strings(tokenizer, known), strict=True))
    name[-1] = "nan"
    choices = [[[name[i] for i in cell] for cell in row] for row in ids.tolist()]
    return LensView(tokens, probs, choices, positions.start)


def lens_table(view: LensView, layers: Sequence[int], name: str = "lens") -> str:
    """An HTML table of first choices, the last of `layers` at the top.

    Pointing at a cell shows its five best.
    """
    heads = "".join(
        f'<th title="{html.escape(visible(token))}">{html.escape(visible(token, 12))}</th>'
        for token in view.tokens
    )
    rows = []
    for layer in sorted(layers, reverse=True):
        cells = "".join(_first_choice(view, layer, place) for place in range(len(view.tokens)))
        rows.append(f"<tr><th>layer {layer}</th>{cells}</tr>")
    css = f".{name} td, .{name} th {{padding: 2px 5px; text-align: center; white-space: pre}}"
    head = f"<thead><tr><th>token read</th>{heads}</tr></thead>"
    table = scrolling_table(f"{head}<tbody>{''.join(rows)}</tbody>", name)
    return f"<style>{css}</style>{table}{tell_left_out(view.left_out)}"


def _first_choice(view: LensView, layer: int, place: int) -> str:
    choices, probs = view.choices[layer][place], view.probs[layer, place].tolist()
    five = [
        f"{html.unescape(probability(prob))}  {visible(choice)}"
        for choice, prob in zip(choices, probs, strict=True)
    ]
    return heat_cell(visible(choices[0], 12), probs[0], tooltip="\n".join(five))


def best_five(view: LensView, layer: int, place: int) -> str:
    """The five best of one cell as HTML: bars with their probabilities."""
    five = zip(view.choices[layer][place], view.probs[layer, place].tolist(), strict=True)
    rows = [
        BarRow(visible(choice), [(prob, f"background:{OKABE_ITO[4]}")], [probability(prob)])
        for choice, prob in five
    ]
    caption = f"Layer {layer}, after {visible(view.tokens[place])}: the five most probable tokens"
    heads = ["token (␣ is a space)", "probability from 0 to 1", ""]
    return bar_table(heads, rows, caption=caption)


def explore_lens(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    picker: LayerPicker | None = None,
) -> Explorer:
    """Type a prompt and see each layer's first choice after each token, and the five best of one.

    A `picker` of layers that other widgets use too can be given; it says which rows are shown.
    """
    reader = PromptReader(model, tokenizer, prompt, read_lens)
    numbers = range(len(reader.view.probs))
    picker = LayerPicker(numbers) if picker is None else picker
    name = f"lens{next(_numbers)}"
    layer = widgets.SelectionSlider(
        options=numbers,
        value=numbers[-1],
        description="Layer",
        continuous_update=SYNC_WHILE_DRAGGING,
    )
    token = token_slider(reader.view.tokens)
    table, mark, best = (widgets.HTML(layout={"max_width": "100%"}) for _ in range(3))

    def show_table() -> None:
        rows = [i for i in picker.value if i in numbers]
        if not rows:
            reader.message.value = "Pick at least one of the layers."
            return
        table.value = lens_table(reader.view, rows, name)
        # Setting options moves a slider to its first one: the cell is shown after both.
        for control in (layer, token):
            control.unobserve(cell_picked, "value")
        kept = layer.value if layer.value in rows else rows[-1]
        layer.options, layer.value = rows, kept
        set_tokens(token, reader.view.tokens)
        for control in (layer, token):
            control.observe(cell_picked, "value")
        show_cell()

    def show_cell() -> None:
        row = len(layer.options) - layer.index  # the last layer is at the top
        cell = f".{name} tbody tr:nth-child({row}) td:nth-child({token.index + 2})"
        mark.value = f"<style>{cell} {{outline: 3px solid #D55E00}}</style>"
        best.value = best_five(reader.view, layer.value, token.value)

    def code() -> str:
        place = reader.view.left_out + token.value
        return CODE.format(prompt=reader.field.value, layer=layer.value, place=place)

    cell_picked = reader.redrawing(show_cell)
    picker.observe(reader.redrawing(show_table), "value")
    for control in (layer, token):
        control.observe(cell_picked, "value")
    sliders = widgets.HBox([layer, token], layout=widgets.Layout(flex_flow="row wrap"))
    reader.start(show_table, [table, mark, sliders, best])
    does = "type a prompt, and pick a cell to see its five most probable tokens"
    parts = [reader.field, picker, reader.message, table, mark, sliders, best]
    return Explorer(parts, does, code)
