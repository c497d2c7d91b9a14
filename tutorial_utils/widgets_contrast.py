"""The contrast explorer: pick the layers to contrast with, and see what changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import ipywidgets as widgets
import torch
from matplotlib.figure import Figure
from transformers import PreTrainedTokenizerBase

from .contrast import contrast_logits
from .decoding import token_strings
from .plots_contrast import plot_contrast
from .widgets import LayerPicker, errors_shown, png


def contrast_at(
    lens: Mapping[int, torch.Tensor],
    position: int,
    candidates: Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
    *,
    alpha: float = 0.1,
    read: str = "",
) -> tuple[str, Figure]:
    """What contrasting the last layer with `candidates` does at one position: a line, a figure.

    `lens` is `{layer: logits (batch, seq, vocab)}` as `logit_lens` gives it; the highest number is
    the last layer, and the first prompt is shown. `read` names the token that was read there.
    """
    layers = sorted(lens)
    final, early = lens[layers[-1]][0, position], {i: lens[i][0, position] for i in layers[:-1]}
    result = contrast_logits(final, {i: early[i] for i in sorted(candidates)}, alpha=alpha)
    picked, everything = int(result.layer), contrast_logits(final, early)
    before, after = final.float().softmax(dim=-1), result.scores.softmax(dim=-1)
    ids = torch.stack([before.argmax(), after.argmax()]).cpu()
    first, then = token_strings(tokenizer, ids)
    kept = int(result.scores.isfinite().sum())
    change = f"stays {first!r}" if first == then else f"changes from {first!r} to {then!r}"
    figure = plot_contrast(
        dict(zip(early, everything.divergence.tolist(), strict=True)),
        picked,
        before,
        after,
        tokenizer,
        candidates=candidates,
        title=f"Contrasted with layer {picked}, after the token {read!r}" if read else "",
    )
    return (
        f"The rule picks layer {picked}. The plausibility set has {kept} "
        f"token{'' if kept == 1 else 's'}. The first choice {change}."
    ), figure
