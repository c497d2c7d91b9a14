"""The softmax explorer: the distribution that is left after temperature and filters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import ipywidgets as widgets
import torch
from transformers import PreTrainedTokenizerBase

from tutorial_utils.decoding import filter_logits, token_strings
from tutorial_utils.draw.described import counted
from tutorial_utils.draw.html import OKABE_ITO, BarRow, bar_table, probability, visible
from tutorial_utils.lessons.explorer import Explorer, check_logits, errors_shown, message_line

CODE = """from tutorial_utils import filter_logits, next_token_logits, token_strings

logits = next_token_logits(model, tokenizer, {prompt!r})[0].cpu()
probs = filter_logits(logits, {settings}).softmax(dim=-1)
best = logits.topk({k}).indices
list(zip(token_strings(tokenizer, best), probs[best].tolist()))"""


def choice_html(
    before: torch.Tensor, choice: FilteredChoice, names: Sequence[str], ids: torch.Tensor
) -> str:
    """Two bars for each of the tokens `ids`, called `names`, and two for all others together.

    The upper bar, grey, is from `before`, the model's own probabilities `(vocab,)`. The lower bar,
    blue, is from the new distribution.
    """
    shown = torch.zeros_like(choice.kept)
    shown[ids] = True
    rows = [
        _choice_row(visible(name), before[i].item(), choice.probs[i].item(), bool(choice.kept[i]))
        for name, i in zip(names, ids.tolist(), strict=True)
    ]
    sums = before[~shown].sum().item(), choice.probs[~shown].sum().item()
    kept = bool(choice.kept[~shown].any())
    rows.append(_choice_row(f"the other {counted(int((~shown).sum()), 'token')}", *sums, kept))
    heads = ["token (␣ is a space)", "probability from 0 to 1"]
    return bar_table([*heads, "above: the model's own", "below: with the settings"], rows)


def _choice_row(name: str, old: float, new: float, kept: bool) -> BarRow:
    bars = [(old, "background:#999999"), (new, f"background:{OKABE_ITO[4]}")]
    return BarRow(name, bars, [probability(old), probability(new) if kept else "dropped"])


class FilteredChoice(NamedTuple):
    """The distribution `(vocab,)` after the filters, and how much of the old one is kept."""

    probs: torch.Tensor
    kept: torch.Tensor  # (vocab,), bool: which tokens can still be drawn
    mass: float  # share of the probability, after the temperature, that these have
    bits: float  # entropy of `probs`


def filtered_choice(logits: torch.Tensor, **settings: Any) -> FilteredChoice:
    """The distribution after `filter_logits(logits, **settings)`, for logits `(vocab,)`.

    Takes the settings of `filter_logits`, and raises its errors. `mass` is the sum of the kept
    tokens' probabilities before the others were dropped; `bits` is -sum(p log2 p) of the new
    distribution. Logits that are not finite are a `ValueError`. Only -inf is allowed: such a token
    has been ruled out.
    """
    if logits.ndim != 1:
        raise ValueError(f"logits must be one row, (vocab,), not {tuple(logits.shape)}")
    check_logits(logits, "the logits")
    filtered = filter_logits(logits, **settings)
    kept = filtered.isfinite()
    probs = filtered.softmax(dim=-1)
    before = (logits.float() / settings.get("temperature", 1.0)).softmax(dim=-1)
    bits = torch.special.entr(probs).sum().item() / math.log(2)
    return FilteredChoice(probs, kept, before[kept].sum().item(), bits)


def explore_softmax(
    logits: Mapping[str, torch.Tensor], tokenizer: PreTrainedTokenizerBase, *, k: int = 12
) -> Explorer:
    """Move temperature, top-k, top-p and min-p; bars, kept mass and entropy follow.

    `logits` are the next-token logits `(vocab,)` of one or more prompts, by prompt. The bars are of
    the `k` tokens that the model itself finds most probable. The model does not run again.
    """
    if not logits:
        raise ValueError("there are no logits: give at least one {prompt: logits (vocab,)}")
    wide = {
        "style": {"description_width": "130px"},
        "layout": {"width": "440px", "max_width": "100%"},
    }
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
        with errors_shown(message, drawings=[told, bars]):
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

    def code() -> str:
        settings = f"temperature={temperature.value:.4g}, top_k={top_k.value or None}, "
        settings += f"top_p={top_p.value:.4g}, min_p={min_p.value:.4g}"
        return CODE.format(prompt=prompt.value, settings=settings, k=k)

    def start_again(_: object) -> None:
        for slider, value in zip(sliders, resting, strict=True):
            slider.value = value

    for control in (prompt, *sliders):
        control.observe(redraw, "value")
    start.on_click(start_again)
    redraw()
    return Explorer(
        [prompt, *sliders, start, told, bars, message],
        "move temperature, top-k, top-p and min-p, and see the bars change",
        code,
    )


def tell_choice(choice: FilteredChoice) -> str:
    """How much the filters keep, and the entropy of the new distribution, in one line of HTML."""
    return (
        f"Kept: <b>{int(choice.kept.sum()):,}</b> of {len(choice.probs):,} tokens, with "
        f"<b>{choice.mass:.3f}</b> of the probability. Entropy of the new distribution: "
        f"<b>{choice.bits:.2f}</b> bits."
    )
