"""Whether the lesson's cells can look into the heads of a model."""

from __future__ import annotations

from torch import Tensor
from transformers import PreTrainedModel

from tutorial_utils.activations.heads import read_head_outputs
from tutorial_utils.activations.layers import locate
from tutorial_utils.activations.patterns import read_attention
from tutorial_utils.attribution import attribute_logits


def why_no_heads(model: PreTrainedModel, input_ids: Tensor) -> str:
    """Why patterns, heads or their shares of a logit can't be read, in words; "" where they can.

    `input_ids` `(1, seq)` are any prompt. All decoder layers must have the same number of heads.
    """
    try:
        patterns = read_attention(model, input_ids)
        heads = read_head_outputs(model, input_ids, layers=None, positions="last")
        attribute_logits(model, input_ids, int(input_ids[0, -1]))
    except ValueError as error:
        return str(error)
    counts = {layer: pattern.shape[1] for layer, pattern in patterns.items()}
    if len(counts) < len(locate(model).layers):
        return f"only decoder layers {[*counts]} have an attention pattern"
    if {*counts.values()} != {heads[1].shape[2]} or {h.shape[2] for h in heads.values()} != {
        *counts.values()
    }:
        return f"decoder layers have different numbers of heads: {counts}"
    return ""
