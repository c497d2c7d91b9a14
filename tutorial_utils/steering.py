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

# Options of `generate`, each with the value that switches it off.
SWITCHED_OFF = {
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
    """The new text of each prompt, and the mean loss of that text in nats per token, (batch,)."""

    texts: list[str]
    losses: Tensor


def mean_differences(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: list[str], others: list[str]
) -> dict[int, Tensor]:
    """For each layer, the mean activation of `texts` minus that of `others`: {layer: (hidden,)}.

    Each mean is taken in float32 over all tokens of all texts, except padding and the first token
    of each text: in many models the first token's activations are far larger than all others.
    By hand: the lesson on patching and steering.

    Raises ValueError for a text of one token only.
    """
    means = []
    for name, group in (("texts", texts), ("others", others)):
        rows = prompt_ids(model, tokenizer, group)
        for number, row in enumerate(rows):
            if len(row) == 1:
                raise ValueError(
                    f"text {number} of `{name}`, {tokenizer.decode(row)!r}, has only one token, "
                    "and the first token is left out: give longer texts"
                )
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

    `directions` are {layer: (hidden,)}, or {layer: (batch, 1, hidden)} with one direction for each
    prompt. They are added at every token, including those of the prompt.

    One text is drawn for each prompt, at temperature 1; settings of generation_config.json that
    would change this are switched off. The same `seed` gives the same random numbers, and the
    caller's random state stays as it was. A list of seeds has one for each prompt: rows with equal
    seeds get equal random numbers, so that less of the difference between two directions is chance.

    The loss of a text is computed by the model *without* the direction. It shows how fluent the
    text still is: the higher, the less fluent. By hand: the lesson on patching and steering.

    Raises ValueError for a prompt that leaves no room for the new tokens in the model's context,
    for a direction or logits that are not finite, for a list of seeds that does not have one
    for each prompt, and where `encode` does.
    """
    inputs = encode(model, tokenizer, prompts)
    length = inputs["input_ids"].shape[1]
    context = context_length(model)
    if context is not None and length + max_new_tokens > context:
        raise ValueError(
            f"this model reads at most {context} tokens, but the prompt has {length} and "
            f"{max_new_tokens} new ones were asked for: shorten the prompt or ask for fewer"
        )
    for layer, vector in directions.items():
        if not (strength * vector).isfinite().all():
            raise ValueError(f"strength times the direction of layer {layer} is not finite")

    seeds = None if isinstance(seed, int) else list(seed)
    if seeds is not None and len(seeds) != len(inputs["input_ids"]):
        raise ValueError(
            f"give one seed for each prompt: {len(inputs['input_ids'])}, not {len(seeds)}"
        )
    generators = {one: torch.Generator().manual_seed(one) for one in seeds or ()}

    def draw(input_ids: Tensor, scores: Tensor) -> Tensor:
        check_finite(scores, "the logits of the steered model", model)
        return _only_drawn(scores, generators, seeds) if seeds else scores

    edits = {layer: partial(_add, strength * vector) for layer, vector in directions.items()}
    # Switch off what generation_config.json sets, and pass nothing that it leaves unset.
    config = model.generation_config
    known = {k: off for k, off in SWITCHED_OFF.items() if getattr(config, k, None) is not None}
    # With a list of seeds `draw` leaves one token, and `generate` need not draw a second time.
    draws = seeds is None
    options = known | {"do_sample": draws, "top_k": 0 if draws else None, "top_p": 1.0}
    steered = edit_activations(model, edits) if edits else nullcontext()
    with _seeded(seed if isinstance(seed, int) else 0), torch.inference_mode(), steered:
        # mypy sees no generate: models inherit it from GenerationMixin, not from PreTrainedModel.
        ids = model.generate(  # type: ignore[operator]
            **inputs, **options, max_new_tokens=max_new_tokens, logits_processor=[draw]
        )
    new = ids[:, length:]
    texts = tokenizer.batch_decode(
        new, skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return Samples(texts, _losses(model, inputs, new))


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draw from `seed` inside the block; afterwards every device has its random state of before."""
    gpus = [device for device in (torch.cuda, torch.xpu) if device.is_available()]
    states = [device.get_rng_state_all() for device in gpus]
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # on the CPU and on every GPU
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
    """Mean loss (batch,) of the tokens `new` (batch, seq), up to and including the first end token.

    `inputs` are the prompts that the new tokens continue.
    """
    is_end = torch.isin(new, torch.tensor(end_ids(model), dtype=new.dtype, device=new.device))
    counted = is_end.cumsum(dim=1) - is_end.long() == 0  # no end token before this one
    mask = torch.cat([inputs["attention_mask"], counted.long()], dim=1)
    ids = torch.cat([inputs["input_ids"], new], dim=1)
    keep = new.shape[1] + 1  # the logits of the last prompt token predict the first new one
    outputs = forward_pass(model, ids, mask, use_cache=False, logits_to_keep=keep)
    logits = outputs.logits[:, -keep:].flatten(0, 1).float()  # (batch * keep, vocab), not copied
    targets = torch.nn.functional.pad(new, (0, 1), value=-100)  # nothing follows the last token
    losses = torch.nn.functional.cross_entropy(logits, targets.flatten(), reduction="none")
    losses = losses.view_as(targets)[:, :-1]
    return ((losses * counted).sum(dim=1) / counted.sum(dim=1)).cpu()
