"""What the explorers of lessons 01 to 03 show of tokens and of the choice between them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .decoding import _BYTE_OF_SYMBOL, _forward, encode, filter_logits, token_strings


class TokenRow(NamedTuple):
    """One token: what it reads as, its id, the bytes it stands for (none where special)."""

    text: str
    token_id: int
    raw: bytes
    special: bool


def token_rows(tokenizer: PreTrainedTokenizerBase, text: str) -> list[TokenRow]:
    """The tokens that the tokenizer makes of `text`, those that it adds of its own accord too.

    In a byte-level vocabulary the `raw` of all rows, put together, are the UTF-8 bytes of `text`.
    """
    ids = tokenizer(text, verbose=False)["input_ids"]
    special = set(tokenizer.all_special_ids)
    return [
        TokenRow(shown, i, b"" if i in special else _raw(tokenizer, i, shown), i in special)
        for i, shown in zip(ids, token_strings(tokenizer, ids), strict=True)
    ]


def _raw(tokenizer: PreTrainedTokenizerBase, token_id: int, shown: str) -> bytes:
    token = tokenizer.convert_ids_to_tokens(token_id)
    if re.fullmatch("<0x[0-9A-F]{2}>", token):  # SentencePiece's spelling of a single byte
        return bytes([int(token[3:5], 16)])
    if "\N{REPLACEMENT CHARACTER}" in tokenizer.decode([token_id]):
        return bytes(_BYTE_OF_SYMBOL[char] for char in token if char in _BYTE_OF_SYMBOL)
    return shown.encode()


class FilteredChoice(NamedTuple):
    """The distribution `(vocab,)` that is drawn from after the filters, and how much is left."""

    probs: torch.Tensor
    kept: torch.Tensor  # (vocab,), bool: which tokens can still be drawn
    mass: float  # share of the probability, after the temperature, that these have
    bits: float  # entropy of `probs`


def filtered_choice(logits: torch.Tensor, **settings: float | int | None) -> FilteredChoice:
    """What is left to draw from after `filter_logits(logits, **settings)`, logits `(vocab,)`.

    Takes the settings of `filter_logits`, with its errors. `mass` counts the probabilities as they
    were before anything was cut off; `bits` is -sum(p log2 p) of what is left.
    """
    if logits.ndim != 1:
        raise ValueError(f"logits must be one row, (vocab,), not {tuple(logits.shape)}")
    filtered = filter_logits(logits, **settings)
    kept = filtered.isfinite()
    probs = filtered.softmax(dim=-1)
    before = (logits.float() / settings.get("temperature", 1.0)).softmax(dim=-1)
    bits = torch.special.entr(probs).sum().item() / math.log(2)
    return FilteredChoice(probs, kept, before[kept].sum().item(), bits)


class Continuation(NamedTuple):
    """A prompt with tokens chosen after it, and the logits of what may come next."""

    text: str  # the chosen tokens, without the prompt
    log_probs: torch.Tensor  # (new tokens,), of each chosen token, given all before it
    logits: torch.Tensor  # (vocab,), float32
    ended: bool  # by an end token, or because the model can read no further


@torch.no_grad()
def continue_prompt(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    chosen: Sequence[int] = (),
) -> Continuation:
    """`prompt` followed by the token ids `chosen`, in one forward pass. By hand: lesson 03.

    Errors as in `encode`, and `ValueError` where prompt and tokens exceed the model's context.
    """
    inputs = encode(model, tokenizer, prompt)
    new = torch.tensor([list(chosen)], dtype=torch.long, device=model.device)  # (1, new tokens)
    ids = torch.cat([inputs["input_ids"], new], dim=1)
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if context is not None and ids.shape[1] > context:
        raise ValueError(
            f"the text is too long: it has {ids.shape[1]} tokens, and this model reads at most "
            f"{context}; shorten the prompt or choose fewer tokens"
        )
    count = new.shape[1] + 1  # the last position of the prompt, and each new token
    outputs = _forward(model, ids, torch.ones_like(ids), use_cache=False, logits_to_keep=count)
    logits = outputs.logits[0, -count:].float()  # (new tokens + 1, vocab)
    log_probs = logits[:-1].log_softmax(dim=-1).gather(-1, new[0, :, None])[:, 0]
    ends = model.generation_config.eos_token_id
    ends = ends if isinstance(ends, (list, tuple)) else [ends]
    ended = (len(chosen) > 0 and int(chosen[-1]) in ends) or ids.shape[1] == context
    return Continuation("".join(token_strings(tokenizer, new[0])), log_probs, logits[-1], ended)
