"""Steering: add a direction to the residual stream while the model writes.

The direction is a difference of means, as in Turner et al. 2023 (arXiv:2308.10248) and Panickssery
et al. 2023 (arXiv:2312.06681). By hand: the lesson on patching and steering.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase

from tutorial_utils.activations.record_and_edit import edit_activations, read_activations
from tutorial_utils.decoding import context_length, encode, end_ids


class Samples(NamedTuple):
    """Continuations: the new text of each prompt, and its mean loss in nats per token (batch,)."""

    texts: list[str]
    losses: Tensor


def mean_differences(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: list[str],
    others: list[str],
) -> dict[int, Tensor]:
    """For each layer, the mean activation of `texts` minus that of `others`: {layer: (hidden,)}.

    Each mean is over all tokens of all texts, float32, without padding and without each text's
    first token, whose activations are far larger in many models.
    By hand: the lesson on patching and steering.

    Raises ValueError for a text of one token only.
    """
    means = []
    for some in (texts, others):
        inputs = encode(model, tokenizer, some)
        mask = inputs["attention_mask"]
        counted = mask.bool() & (mask.cumsum(dim=1) > 1)  # (batch, seq)
        if not counted.any(dim=1).all():
            raise ValueError(
                "a text has only one token, and the first token is left out: give longer texts"
            )
        given = _with_positions(model, inputs)
        activations = read_activations(model, given.pop("input_ids"), **given)
        means.append({i: hidden[counted].float().mean(dim=0) for i, hidden in activations.items()})
    return {layer: means[0][layer] - means[1][layer] for layer in means[0]}


def sample_steered(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: str | list[str],
    directions: Mapping[int, Tensor],
    strength: float,
    *,
    max_new_tokens: int = 16,
    seed: int = 0,
) -> Samples:
    """Continue each prompt with `strength` times a direction added at each layer of `directions`.

    `directions` are {layer: (hidden,)}, or (batch, 1, hidden) to give each prompt one of its own.
    They are added at every token, those of the prompt included.

    Tokens are drawn at temperature 1, with the same random numbers for the same `seed`; the
    caller's random numbers stay as they were. The loss of a text is what the model *without* the
    direction thinks of it: how fluent it still is. By hand: the lesson on patching and steering.

    Raises ValueError for a prompt that leaves no room for the new tokens in the model's context.
    """
    inputs = encode(model, tokenizer, prompts)
    length = inputs["input_ids"].shape[1]
    context = context_length(model)
    if context is not None and length + max_new_tokens > context:
        raise ValueError(
            f"the prompt has {length} tokens and {max_new_tokens} new ones were asked for, but "
            f"this model reads at most {context}: shorten the prompt or ask for fewer"
        )
    edits = {layer: partial(_add, strength * vector) for layer, vector in directions.items()}
    with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
        torch.manual_seed(seed)
        with torch.inference_mode(), edit_activations(model, edits) if edits else nullcontext():
            # mypy sees no generate: models get it from a class beside PreTrainedModel.
            ids = model.generate(  # type: ignore[operator]
                **inputs, do_sample=True, top_k=0, top_p=1.0, max_new_tokens=max_new_tokens
            )
    new = ids[:, length:]
    texts = tokenizer.batch_decode(
        new, skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return Samples(texts, _losses(model, inputs, new))


def _add(vector: Tensor, hidden: Tensor) -> Tensor:
    return hidden + vector.to(hidden)


def _with_positions(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
    """The inputs with each token's position, for models that would count the padding too."""
    positions = (inputs["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)
    known = "position_ids" in inspect.signature(model.forward).parameters
    return {**inputs, "position_ids": positions} if known else {**inputs}


@torch.no_grad()
def _losses(model: PreTrainedModel, inputs: BatchEncoding, new: Tensor) -> Tensor:
    """Mean loss (batch,) of the tokens `new` (batch, seq) after `inputs`, up to the first end."""
    is_end = torch.isin(new, torch.tensor(end_ids(model), dtype=new.dtype, device=new.device))
    counted = is_end.cumsum(dim=1) - is_end.long() == 0  # the end token itself counts
    mask = torch.cat([inputs["attention_mask"], counted.long()], dim=1)
    whole = {"input_ids": torch.cat([inputs["input_ids"], new], dim=1), "attention_mask": mask}
    logits = model(**_with_positions(model, whole), use_cache=False).logits
    logits = logits[:, -new.shape[1] - 1 : -1].float()  # each predicts the token after it
    losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), new, reduction="none")
    return ((losses * counted).sum(dim=1) / counted.sum(dim=1)).cpu()
