"""The contrast explorer: pick the layers to contrast with, and see what changes.

The model runs once for each prompt. The drawing is HTML: `plot_contrast` shows the same, but
drawing it alone takes as long as a whole move may take.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import ipywidgets as widgets
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tutorial_utils.activations.record_and_edit import read_activations
from tutorial_utils.contrast import candidate_layers, contrast_logits, jensen_shannon
from tutorial_utils.decoding import token_strings
from tutorial_utils.draw.html import BarRow, bar_table, probability, visible
from tutorial_utils.lens import logit_lens
from tutorial_utils.lessons.contrast.figures import AFTER, BEFORE
from tutorial_utils.lessons.explorer import Explorer, LayerPicker, check_logits, escape
from tutorial_utils.lessons.prompt import (
    PromptReader,
    encode_last,
    set_tokens,
    tell_left_out,
    token_slider,
)

CODE = """from tutorial_utils import contrast_logits, encode, logit_lens, read_activations

inputs = encode(model, tokenizer, {prompt!r})
lens = logit_lens(model, read_activations(model, **inputs))  # {{layer: (batch, seq, vocab)}}
at_token = {{layer: logits[0, {place}] for layer, logits in lens.items()}}
candidates = {{layer: at_token[layer] for layer in {candidates}}}
result = contrast_logits(at_token[max(at_token)], candidates, alpha={alpha:.4g})
result.layer, result.scores.softmax(dim=-1)"""
MAX_CANDIDATES = 6  # tokens whose probabilities are drawn


class ContrastView(NamedTuple):
    """What one run of the model gives the explorer, for the last tokens of the prompt."""

    tokens: list[str]  # (seq,)
    lens: dict[int, torch.Tensor]  # {layer: logits (seq, vocab)}, all layers
    divergence: dict[int, torch.Tensor]  # {layer: bits (seq,)}, all layers but the last
    left_out: int  # tokens before these


def read_contrast(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str
) -> ContrastView:
    """Run the model on the prompt, and look at each layer and token through the lens."""
    inputs, positions, tokens = encode_last(model, tokenizer, prompt)
    by_layer = logit_lens(model, read_activations(model, **inputs, positions=positions))
    lens = {layer: logits[0].detach() for layer, logits in by_layer.items()}
    final = lens[max(lens)]
    divergence = {i: jensen_shannon(final, lens[i]).cpu() for i in lens if i < max(lens)}
    return ContrastView(tokens, lens, divergence, positions.start)


def contrast_at(
    view: ContrastView,
    tokenizer: PreTrainedTokenizerBase,
    place: int,
    candidates: Collection[int],
    alpha: float,
) -> tuple[str, str]:
    """What contrasting with `candidates` does after the token at `place`: in words, and as HTML.

    `ValueError` where the last layer or a candidate gives logits that are not finite.
    """
    for layer in (*candidates, max(view.lens)):
        check_logits(view.lens[layer][place], f"the logits of layer {layer}")
    final = view.lens[max(view.lens)][place]
    result = contrast_logits(final, {i: view.lens[i][place] for i in candidates}, alpha=alpha)
    before, after = final.float().softmax(dim=-1).cpu(), result.scores.softmax(dim=-1).cpu()
    best = token_strings(tokenizer, torch.stack([before.argmax(), after.argmax()]))
    first, then = (f"«{visible(token, 14)}»" for token in best)
    plausible, picked = result.scores.isfinite().cpu(), int(result.layer)
    kept, changed = int(plausible.sum()), f"was {first} and is now {then}"
    said = (
        f"Of the candidates, layer {picked} differs most from the last layer. "
        f"{kept:,} {'token is' if kept == 1 else 'tokens are'} plausible. "
        f"The first choice {f'stays {first}' if first == then else changed}."
    )
    said = f"{said} {tell_left_out(view.left_out)}".strip()
    divergence = {layer: float(bits[place]) for layer, bits in view.divergence.items()}
    ids = torch.maximum(before, after).topk(min(MAX_CANDIDATES, len(before))).indices
    ids = ids[before[ids].argsort(descending=True)]
    rows = [
        (name, before[i].item(), after[i].item() if plausible[i] else None)
        for name, i in zip(token_strings(tokenizer, ids), ids.tolist(), strict=True)
    ]
    title = f"Next after {visible(view.tokens[place])}, contrasted with layer {picked}"
    return said, contrast_html(divergence, picked, candidates, rows, title)


def contrast_html(
    divergence: Mapping[int, float],
    picked: int,
    candidates: Collection[int],
    rows: Collection[tuple[str, float, float | None]],
    title: str,
) -> str:
    """Two tables of bars: the `{layer: bits}` from the last layer, and what the contrast changes.

    `rows` are `(token, probability before, after)`, after as None where the token is out.
    """
    layers = []
    for layer, bits in sorted(divergence.items(), reverse=True):
        role = "◂ picked" if layer == picked else "candidate" if layer in candidates else "–"
        filled = f"background:{BEFORE}" if layer in candidates else "border:1px dashed #999"
        layers.append(
            BarRow(f"layer {layer}", [(bits, filled)], [probability(bits), role], "◂" in role)
        )
    tokens = []
    for name, old, new in rows:
        bars = [(old, f"background:{BEFORE}"), (new or 0, f"background:{AFTER}")]
        words = [probability(old), "dropped" if new is None else probability(new)]
        tokens.append(BarRow(visible(name, 14), bars, words))
    left = bar_table(
        ["layer", "0 to 1 bit", "bits", "role"],
        layers,
        caption="Divergence from the last layer",
        widths=["72px", "auto", "68px", "88px"],
    )
    right = bar_table(
        ["token", "probability", "above: last", "below: contrasted"],
        tokens,
        caption=title,
        widths=["124px", "auto", "100px", "148px"],
    )
    tables = "".join(
        f'<div style="flex:{grow} 1 {width}px;min-width:0">{table}</div>'
        for grow, width, table in ((0, 320, left), (1, 440, right))
    )
    return f'<div style="display:flex;flex-wrap:wrap;gap:24px">{tables}</div>'


def explore_contrast(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    picker: LayerPicker | None = None,
) -> Explorer:
    """Pick layers, a token and alpha; see which layer the rule takes and what that changes.

    A `picker` of layers that other widgets use too can be given; the last layer is left out.
    """
    reader = PromptReader(model, tokenizer, prompt, read_contrast)
    if picker is None:
        picker = LayerPicker([*reader.view.divergence], candidate_layers(model, "low"))
    token = token_slider(reader.view.tokens)
    alpha = widgets.FloatSlider(0.1, min=0, max=1, step=0.05, description="alpha")
    said, drawing = widgets.HTML(), widgets.HTML(layout=widgets.Layout(width="100%"))

    def show_prompt() -> None:
        token.unobserve(moved, "value")  # new options move the slider: draw once, after both
        set_tokens(token, reader.view.tokens)
        token.observe(moved, "value")
        show()

    def show() -> None:
        candidates = [i for i in picker.value if i in reader.view.divergence]
        if not candidates:
            reader.message.value = "Pick at least one of the layers before the last."
            return
        words, tables = contrast_at(reader.view, tokenizer, token.value, candidates, alpha.value)
        said.value, drawing.value = escape(words), tables

    def code() -> str:
        candidates = [i for i in picker.value if i in reader.view.divergence]
        place = reader.view.left_out + token.value
        values = {"candidates": candidates, "place": place, "alpha": alpha.value}
        return CODE.format(prompt=reader.field.value, **values)

    moved = reader.redrawing(show)
    for control in (picker, token, alpha):
        control.observe(moved, "value")
    reader.start(show_prompt, [token, said, drawing])
    sliders = widgets.HBox([token, alpha], layout=widgets.Layout(flex_flow="row wrap"))
    does = "pick the layers to contrast with; see which is taken, and what changes"
    return Explorer([reader.field, picker, sliders, reader.message, said, drawing], does, code)
