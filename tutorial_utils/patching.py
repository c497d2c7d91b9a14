"""Activation patching: which activation, put into another run, changes the answer?

Two prompts of as many tokens are run, and an activation of the one is put into the run of the other
(Vig et al. 2020, arXiv:2004.12265; Meng et al. 2022, arXiv:2202.05262). By hand: the lesson on
patching and steering.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tutorial_utils.activations.parts import hooked_part
from tutorial_utils.activations.record_and_edit import edit_activations
from tutorial_utils.decoding import next_token_logits
from tutorial_utils.encoding import prompt_ids


def patch_each(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    source: Mapping[int, Tensor],
    score: Callable[[Tensor], Tensor],
    *,
    part: str | None = None,
) -> Tensor:
    """Patch `prompt` at each layer and token in turn, and score what the model says next.

    Args:
        source: {layer: activations (1, seq, hidden)} of another prompt of as many tokens, as
            `read_activations` gives them, or `read_parts` with the same `part`.
        score: a function from next-token logits (batch, vocab), float32, to one number each
            (batch,).
        part: None patches the residual stream; "attention" or "mlp" what that part of each decoder
            layer gives out, before it is added to the stream.

    Gives the scores (layers, seq), float32 on the CPU, rows in the order of `source`. All tokens of
    a layer share one forward pass: row p of its batch is the prompt with token p patched. A bar
    shows the progress. By hand: the lesson on patching and steering.
    """
    if not isinstance(prompt, str):
        raise ValueError(f"prompt must be one string, not {prompt!r:.80}")
    seq = len(prompt_ids(model, tokenizer, prompt)[0])
    _check_source(source, seq)
    each = torch.arange(seq)
    scores = []
    for layer, activation in tqdm(source.items(), desc="patching", unit="layer", leave=False):

        def put(hidden: Tensor, activation: Tensor = activation) -> Tensor:
            patched = hidden.clone()  # (seq copies of the prompt, seq, hidden)
            patched[each, each] = activation[0].to(hidden)
            return patched

        with _edited(model, layer, seq, put, part):
            row = score(next_token_logits(model, tokenizer, [prompt] * seq))
        if not isinstance(row, Tensor) or row.shape != (seq,):
            given = tuple(row.shape) if isinstance(row, Tensor) else type(row).__name__
            raise ValueError(
                f"score must give one number for each row of logits (batch, vocab), here a tensor "
                f"of shape ({seq},), and it gave {given}"
            )
        scores.append(row.float().cpu())
    return torch.stack(scores)


def _check_source(source: Mapping[int, Tensor], seq: int) -> None:
    if not isinstance(source, Mapping) or not source:
        raise ValueError("source is {layer: activations (1, seq, hidden)} with at least one layer")
    for layer, activation in source.items():
        shape = tuple(activation.shape)
        if len(shape) != 3 or shape[0] != 1:
            raise ValueError(
                f"the source at layer {layer} has shape {shape} instead of (1, seq, hidden): one "
                "prompt is patched into one prompt"
            )
        if shape[1] != seq:
            raise ValueError(
                f"the source has {shape[1]} tokens and the prompt has {seq}: each token takes the "
                "activation of the token in its place, so choose prompts of as many tokens"
            )


def _edited(
    model: nn.Module, layer: int, batch: int, put: Callable, part: str | None
) -> AbstractContextManager:
    if part is None:
        return edit_activations(model, {layer: put})
    return hooked_part(model, part, layer, batch, put)
