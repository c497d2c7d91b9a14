"""Steering: add a direction to the residual stream while the model writes.

The direction is a difference of means, as in Turner et al. 2023 (arXiv:2308.10248) and Panickssery
et al. 2023 (arXiv:2312.06681). By hand: the lesson on patching and steering.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase

from tutorial_utils.activations.inputs import input_device
from tutorial_utils.activations.record_and_edit import edit_activations, read_activations
from tutorial_utils.decoding import check_finite, end_ids, forward_pass
from tutorial_utils.encoding import context_length, encode, pad_rows, prompt_ids

# Options of `generate` and the values with which they change nothing.
PLAIN = {
    "temperature": 1.0,
    "min_p": 0.0,
    "typical_p": 1.0,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "guidance_scale": 1.0,
    "num_beams": 1,
    "num_return_sequences": 1,
}


class Samples(NamedTuple):
    """Continuations: the new text of each prompt, and its mean loss in nats per token (batch,)."""

    texts: list[str]
    losses: Tensor


def mean_differences(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: list[str], others: list[str]
) -> dict[int, Tensor]:
    """For each layer, the mean activation of `texts` minus that of `others`: {layer: (hidden,)}.

    Each mean is over all tokens of all texts, float32, without padding and without each text's
    first token, whose activations are far larger in many models.
    By hand: the lesson on patching and steering.

    Raises ValueError for a text of one token only.
    """
    means = []
    for some in (texts, others):
        rows = prompt_ids(model, tokenizer, some)
        if min(map(len, rows)) == 1:
            why = "a text has only one token, and the first token is left out"
            raise ValueError(f"{why}: give longer texts")
        ids, mask = pad_rows(rows, left=False, device=input_device(model)).values()
        activations = read_activations(model, ids, attention_mask=mask)
        mask[:, 0] = 0
        kept = {i: h[mask.to(h.device) > 0] for i, h in activations.items()}
        means.append({i: vectors.float().mean(dim=0) for i, vectors in kept.items()})
    return {layer: means[0][layer] - means[1][layer] for layer in means[0]}


def sample_steered(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: str | list[str],
    directions: Mapping[int, Tensor],
    strength: float,
    *,
    max_new_tokens: int = 16,
    seed: int | list[int] = 0,
) -> Samples:
    """Continue each prompt with `strength` times a direction added at each layer of `directions`.

    `directions` are {layer: (hidden,)}, or (batch, 1, hidden) to give each prompt one of its own.
    They are added at every token, those of the prompt included.

    Tokens are drawn at temperature 1, one text for each prompt, whatever generation_config.json
    says, with the same random numbers for the same `seed`; the caller's stay as they were. A list
    of seeds has one for each prompt: rows with equal seeds get equal random numbers, so that what
    differs between two directions comes less from chance. The loss of a text is what the model
    *without* the direction thinks of it: how fluent it still is.
    By hand: the lesson on patching and steering.

    Raises ValueError for a prompt that leaves no room for the new tokens in the model's context,
    for a direction and for logits that are not finite, for a list of seeds of another length than
    the prompts', and otherwise as `encode`.
    """
    inputs = encode(model, tokenizer, prompts)
    length = inputs["input_ids"].shape[1]
    context = context_length(model)
    if context is not None and length + max_new_tokens > context:
        raise ValueError(
            f"the prompt has {length} tokens and {max_new_tokens} new ones were asked for, but "
            f"this model reads at most {context}: shorten the prompt or ask for fewer"
        )
    for layer, vector in directions.items():
        if not (strength * vector).isfinite().all():
            raise ValueError(f"strength times the direction of layer {layer} is not finite")

    seeds = None if isinstance(seed, int) else list(seed)
    if seeds is not None and len(seeds) != len(inputs["input_ids"]):
        raise ValueError(f"{len(inputs['input_ids'])} prompts need as many seeds, not {len(seeds)}")
    generators = {one: torch.Generator().manual_seed(one) for one in seeds or ()}

    def draw(input_ids: Tensor, scores: Tensor) -> Tensor:
        check_finite(scores, "the logits of the steered model", model)
        return _only_drawn(scores, generators, seeds) if seeds else scores

    edits = {layer: partial(_add, strength * vector) for layer, vector in directions.items()}
    # What generation_config.json may say besides, switched off.
    said = {name: getattr(model.generation_config, name, None) for name in PLAIN}
    options = {name: PLAIN[name] for name, value in said.items() if value is not None}
    options |= {"top_k": 0, "top_p": 1.0, "max_new_tokens": max_new_tokens}
    steered = edit_activations(model, edits) if edits else nullcontext()
    with _seeded(seed if isinstance(seed, int) else 0), torch.inference_mode(), steered:
        # mypy sees no generate: models get it from a class beside PreTrainedModel.
        ids = model.generate(  # type: ignore[operator]
            **inputs, **options, do_sample=True, logits_processor=[draw]
        )
    new = ids[:, length:]
    plain = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
    return Samples(tokenizer.batch_decode(new, **plain), _losses(model, inputs, new))


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """The same random numbers each time; the caller's own, on every device, stay as they were."""
    gpus = [device for device in (torch.cuda, torch.xpu) if device.is_available()]
    states = [device.get_rng_state_all() for device in gpus]
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # of the CPU and of every GPU
        try:
            yield
        finally:
            for device, state in zip(gpus, states):
                device.set_rng_state_all(state)
            if mps is not None:
                torch.mps.set_rng_state(mps)


def _only_drawn(scores: Tensor, generators: dict[int, torch.Generator], seeds: list[int]) -> Tensor:
    """The logits (batch, vocab) with one token left in each row, drawn by the Gumbel-max trick.

    Equal seeds share their noise, and a row's noise does not depend on the rest of the batch.
    """
    size = scores.shape[-1]
    noise = {
        one: -torch.empty(size).exponential_(generator=g).log() for one, g in generators.items()
    }
    drawn = scores.float() + torch.stack([noise[one] for one in seeds]).to(scores.device)
    nothing = torch.full_like(scores, float("-inf"))
    return nothing.scatter(1, drawn.argmax(dim=-1, keepdim=True), 0)


def _add(vector: Tensor, hidden: Tensor) -> Tensor:
    return hidden + vector.to(hidden)


@torch.no_grad()
def _losses(model: PreTrainedModel, inputs: BatchEncoding, new: Tensor) -> Tensor:
    """Mean loss (batch,) of the tokens `new` (batch, seq) after `inputs`, up to the first end."""
    is_end = torch.isin(new, torch.tensor(end_ids(model), dtype=new.dtype, device=new.device))
    counted = is_end.cumsum(dim=1) - is_end.long() == 0  # the end token itself counts
    mask = torch.cat([inputs["attention_mask"], counted.long()], dim=1)
    whole, count = torch.cat([inputs["input_ids"], new], dim=1), new.shape[1] + 1
    outputs = forward_pass(model, whole, mask, use_cache=False, logits_to_keep=count)
    logits = outputs.logits[:, -count:-1].float()  # each predicts the token after it
    losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), new, reduction="none")
    return ((losses * counted).sum(dim=1) / counted.sum(dim=1)).cpu()
