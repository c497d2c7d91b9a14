"""The contrast explorer of lesson 06: pick the layers to contrast with, and see what changes.

The model runs once for each prompt.
"""

from __future__ import annotations

import html
from collections.abc import Collection
from typing import NamedTuple

import ipywidgets as widgets
import torch
from matplotlib.figure import Figure
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .activations import read_activations
from .contrast import candidate_layers, contrast_logits, jensen_shannon
from .decoding import encode, token_strings
from .lens import logit_lens
from .plots_contrast import plot_contrast
from .widgets_shared import (
    Explorer,
    LayerPicker,
    errors_shown,
    message_line,
    png,
    prompt_field,
    token_options,
)

MOST_TOKENS = 40  # the last ones of a long prompt


class ContrastView(NamedTuple):
    """What one run of the model gives the explorer, for the last `MOST_TOKENS` tokens."""

    tokens: list[str]  # (seq,)
    lens: dict[int, torch.Tensor]  # {layer: logits (seq, vocab)}, all layers
    divergence: dict[int, torch.Tensor]  # {layer: bits (seq,)}, all layers but the last


def read_contrast(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str
) -> ContrastView:
    """Run the model on the prompt, and look at each layer and token through the lens."""
    inputs = encode(model, tokenizer, prompt)
    seq = inputs["input_ids"].shape[1]
    shown = range(max(0, seq - MOST_TOKENS), seq)
    lens = logit_lens(model, read_activations(model, **inputs, positions=shown))
    lens = {layer: logits[0].detach() for layer, logits in lens.items()}
    final = lens[max(lens)]
    divergence = {i: jensen_shannon(final, lens[i]).cpu() for i in lens if i < max(lens)}
    tokens = token_strings(tokenizer, inputs["input_ids"][0, shown.start :])
    return ContrastView(tokens, lens, divergence)


def contrast_at(
    view: ContrastView,
    tokenizer: PreTrainedTokenizerBase,
    place: int,
    candidates: Collection[int],
    alpha: float,
) -> tuple[str, Figure]:
    """What contrasting with `candidates` does after the token at `place`: in words, and drawn."""
    final = view.lens[max(view.lens)][place]
    result = contrast_logits(final, {i: view.lens[i][place] for i in candidates}, alpha=alpha)
    before, after = final.float().softmax(dim=-1), result.scores.softmax(dim=-1)
    best = token_strings(tokenizer, torch.stack([before.argmax(), after.argmax()]).cpu())
    first, then = (f"«{token}»" for token in best)
    kept, picked = int(result.scores.isfinite().sum()), int(result.layer)
    said = (
        f"Of these layers, layer {picked} differs most from the last. "
        f"{kept} {'token is' if kept == 1 else 'tokens are'} plausible. "
        f"The first choice {f'stays {first}' if first == then else f'was {first}, now {then}'}."
    )
    figure = plot_contrast(
        {layer: float(bits[place]) for layer, bits in view.divergence.items()},
        picked,
        before,
        after,
        tokenizer,
        candidates=candidates,
        title=f"After «{view.tokens[place]}», contrasted with layer {picked}",
    )
    return said, figure


def explore_contrast(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    picker: LayerPicker | None = None,
) -> Explorer:
    """Pick layers, a token and alpha; see which layer the rule takes and what that changes.

    A `picker` of layers that other widgets use too can be given; the last layer is left out.
    """
    view = read_contrast(model, tokenizer, prompt)
    if picker is None:
        picker = LayerPicker([*view.divergence], candidate_layers(model, "low"))
    text = prompt_field(prompt)
    token = widgets.SelectionSlider(options=token_options(view.tokens), description="Token")
    token.value = len(view.tokens) - 1
    alpha = widgets.FloatSlider(0.1, min=0, max=1, step=0.05, description="alpha")
    said, message = message_line(), message_line()
    image = widgets.Image(format="png", layout=widgets.Layout(max_width="100%"))

    def read(_: object) -> None:
        nonlocal view
        with errors_shown(message):
            if not text.value:
                message.value = "Type a prompt and press Enter."
                return
            view = read_contrast(model, tokenizer, text.value)
            token.unobserve(redraw, "value")  # new options move the slider: draw once, after both
            token.options = token_options(view.tokens)
            token.value = len(view.tokens) - 1
            token.observe(redraw, "value")
            redraw()

    def redraw(_: object = None) -> None:
        with errors_shown(message):
            candidates = [i for i in picker.value if i in view.divergence]
            if not candidates:
                message.value = "Pick at least one of the layers before the last."
                return
            words, figure = contrast_at(view, tokenizer, token.value, candidates, alpha.value)
            said.value, image.value = html.escape(words), png(figure)

    text.observe(read, "value")
    for control in (picker, token, alpha):
        control.observe(redraw, "value")
    redraw()
    sliders = widgets.HBox([token, alpha], layout=widgets.Layout(flex_flow="row wrap"))
    does = "pick the layers to contrast with; see which is taken, and what changes"
    return Explorer([text, picker, sliders, said, message, image], does)
