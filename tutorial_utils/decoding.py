"""From a prompt to the next token: probabilities, filters, and decoding one step at a time."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

from tutorial_utils.activations.inputs import input_device
from tutorial_utils.encoding import (
    context_length,
    encode,
    numbers_from_padding,
    pad_rows,
    prompt_ids,
    reads_padding,
)

# Byte-level BPE writes each byte as one printable character. This maps that character to the byte.
BYTE_OF_SYMBOL = {symbol: byte for byte, symbol in bytes_to_unicode().items()}


def end_ids(model: PreTrainedModel) -> list[int]:
    """Ids of the tokens after which generation stops; empty if the model has none."""
    ends = model.generation_config.eos_token_id if model.generation_config else None
    return [] if ends is None else list(ends) if isinstance(ends, (list, tuple)) else [int(ends)]


@torch.no_grad()
def forward_pass(
    model: PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor, **options: object
) -> Any:
    """The model's output for `ids` (batch, seq), by default with the logits of the last token only.

    `mask` (batch, all tokens) also covers the tokens in the KV cache, which come before `ids`.
    """
    return model(**pass_inputs(model, ids, mask, **options))


def pass_inputs(
    model: PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor, **options: object
) -> dict[str, Any]:
    """What `forward_pass` gives the model."""
    options = {"logits_to_keep": 1, **options}
    if not numbers_from_padding(model):  # the model itself may count padding or ignore the KV cache
        options["position_ids"] = (mask.cumsum(dim=-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    known = inspect.signature(model.forward).parameters  # not every architecture takes all of them
    options = {name: value for name, value in options.items() if name in known}
    return {"input_ids": ids, "attention_mask": mask, **options}


def next_token_logits(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: str | list[str]
) -> torch.Tensor:
    """Scores of every token as the next one, `(batch, vocab)`, float32, without gradients.

    They are read at the last token of each prompt. A prompt gets the same scores in a padded batch
    as alone, up to rounding. Errors as in `encode`. By hand: the lesson on logits and softmax.
    """
    rows = prompt_ids(model, tokenizer, prompts)
    one_by_one = len({len(row) for row in rows}) > 1 and reads_padding(model)
    batches = [[row] for row in rows] if one_by_one else [rows]
    logits = []
    for batch in batches:
        ids, mask = pad_rows(batch, left=True, device=input_device(model)).values()
        outputs = forward_pass(model, ids, mask, use_cache=False)
        logits.append(outputs.logits[:, -1].float())
    return torch.cat(logits)


def next_token_probs(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: str | list[str]
) -> torch.Tensor:
    """Probability of every token as the next one, `(batch, vocab)`, float32; each row sums to 1.

    The softmax of `next_token_logits`, with the same errors.
    By hand: the lesson on logits and softmax.
    """
    return next_token_logits(model, tokenizer, prompts).softmax(dim=-1)


def check_finite(numbers: torch.Tensor, name: str, model: PreTrainedModel | None = None) -> None:
    """Raise ValueError for NaN, for infinity, and for a row of -inf only, which forbids all tokens.

    `numbers` (..., vocab) are logits or probabilities. The message names the dtype of `model`.
    """
    if (numbers.amax(dim=-1) > -math.inf).all() and (numbers < math.inf).all():  # false for NaN
        return
    is_nan, is_inf = numbers.isnan().any(), numbers.isposinf().any()
    found = "NaN" if is_nan else "infinity" if is_inf else "a row of nothing but -inf"
    dtype = str(model.dtype).removeprefix("torch.") if model is not None else ""
    made = f", computed in {dtype}" if dtype else ""
    raise ValueError(
        f"{name} are not finite: there is {found} among them{made}. {why_not_finite(dtype)}"
    )


def why_not_finite(dtype: str) -> str:
    """What can make a model's numbers infinite or NaN in this dtype, and what to do."""
    if dtype in ("float32", "bfloat16"):  # nothing that a model computes is too large for these
        return (
            "A weight or an edit is not finite, or the model's files are damaged: download or "
            "install them again"
        )
    return (
        "A number was too large for its dtype (float16 ends at 65504, and many models go beyond "
        'it), or a weight or an edit is not finite. Try load_model(..., dtype="bfloat16"), or '
        '"float32"'
    )


def token_strings(
    tokenizer: PreTrainedTokenizerBase, ids: torch.Tensor | Iterable[int]
) -> list[str]:
    """The text that each id of `(seq,)` stands for, including special tokens.

    Spaces are kept. Bytes that are only part of a character are shown as `<0xE2>`, and an id that
    the tokenizer does not know as `<id 400>`. By hand: the lesson on tokenization.
    """
    ids = ids if isinstance(ids, torch.Tensor) else torch.tensor(list(ids), dtype=torch.long)
    if ids.ndim != 1:
        raise ValueError(f"ids must be one row, (seq,), not {tuple(ids.shape)}: use ids[0]")
    return [_token_string(tokenizer, token_id) for token_id in ids.tolist()]


def _token_string(tokenizer: PreTrainedTokenizerBase, token_id: int) -> str:
    token = tokenizer.convert_ids_to_tokens([token_id])[0] if token_id >= 0 else None
    if token is None:  # logits are often padded to a round number beyond the last token
        return f"<id {token_id}>"
    text = str(tokenizer.decode([token_id], clean_up_tokenization_spaces=False))
    if "\N{REPLACEMENT CHARACTER}" in text and all(char in BYTE_OF_SYMBOL for char in token):
        raw = bytes(BYTE_OF_SYMBOL[char] for char in token)
        # "surrogateescape" turns a byte that cannot be decoded into U+DC00 plus that byte.
        chars = raw.decode("utf-8", "surrogateescape")
        return re.sub("[\udc80-\udcff]", lambda c: f"<0x{ord(c[0]) - 0xDC00:02X}>", chars)
    # SentencePiece marks a space with U+2581, and `decode` drops a space at the start.
    spaces = len(token) - len(token.lstrip("\u2581"))
    return " " * spaces + text.lstrip(" ") if spaces else text


def top_tokens(
    probs: torch.Tensor, tokenizer: PreTrainedTokenizerBase, k: int = 5
) -> list[tuple[str, float]]:
    """The `k` most probable tokens of `(vocab,)`, best first: (text, probability) of each.

    Raises `ValueError` for other shapes, for a `k` that is not from 1 to the vocabulary's size, and
    for probabilities that are not finite.
    """
    if probs.ndim != 1:
        shape = tuple(probs.shape)
        raise ValueError(f"probs must be one distribution, (vocab,), not {shape}: use probs[0]")
    if not 1 <= k <= len(probs):
        raise ValueError(f"k is {k}: it must be between 1 and {len(probs)}, the vocabulary's size")
    check_finite(probs, "probs")
    best = probs.topk(k)
    return list(zip(token_strings(tokenizer, best.indices), best.values.tolist(), strict=True))


def filter_logits(
    logits: torch.Tensor,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
) -> torch.Tensor:
    """Divide logits `(..., vocab)` by the temperature, and set those that a filter drops to -inf.

    The result is float32. The order is that of transformers' `generate`:

    - temperature;
    - top-k keeps the `k` highest logits, and those that are equal to the lowest of them;
    - top-p keeps the fewest tokens whose probabilities add up to `top_p` (Holtzman et al. 2020,
      arXiv:1904.09751);
    - min-p keeps tokens with at least `min_p` times the highest probability (Nguyen et al. 2024,
      arXiv:2407.01082).

    The most probable token always stays.

    By hand: the lesson on logits and softmax (temperature) and the lesson on decoding (filters).
    """
    if not 1e-30 < temperature < math.inf:  # below 1e-30, float32 logits become infinite
        raise ValueError(
            f"temperature is {temperature}: it must be a finite number above 1e-30; for the "
            "most probable token each time, use greedy decoding: logits.argmax(dim=-1)"
        )
    if top_k is not None and (not isinstance(top_k, int) or top_k < 1):
        raise ValueError(f"top_k is {top_k}: it must be a whole number from 1, or None for all")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p is {top_p}: it must be above 0 and at most 1, or None for all")
    if min_p is not None and not 0 <= min_p <= 1:
        raise ValueError(f"min_p is {min_p}: it must be between 0 and 1, or None for all")
    logits = logits.float() / temperature
    if top_k is not None:
        last_kept = logits.topk(min(top_k, logits.shape[-1])).values[..., -1:]
        logits = logits.masked_fill(logits < last_kept, -math.inf)
    if top_p is not None and top_p < 1:
        ascending, order = logits.sort(dim=-1)
        drop = (
            ascending.softmax(dim=-1).cumsum(dim=-1) <= 1 - top_p
        )  # the tail of improbable tokens
        drop[..., -1] = False
        logits = logits.masked_fill(drop.scatter(-1, order, drop), -math.inf)
    if min_p is not None:
        probs = logits.softmax(dim=-1)
        drop = probs < min_p * probs.amax(dim=-1, keepdim=True)
        logits = logits.masked_fill(drop, -math.inf)
    return logits


class DecodingStep(NamedTuple):
    """A new token: its id, probabilities (vocab,) before any filter, and the text with it."""

    token_id: int
    probs: torch.Tensor
    text: str


def decoding_steps(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    *,
    max_new_tokens: int,
    choose: Callable[[torch.Tensor], torch.Tensor | int] = torch.argmax,
) -> Iterator[DecodingStep]:
    """Continue `prompt` token by token with the KV cache; yields one `DecodingStep` for each token.

    `choose` takes the logits `(vocab,)`, float32, and returns a token id. The default is greedy,
    like `model.generate(..., do_sample=False)`. To sample:
    `choose=lambda logits: filter_logits(logits, top_p=0.9).softmax(-1).multinomial(1)`.

    In a step, `probs` is the softmax of the logits, before any filter of `choose`, and `text` is
    the prompt with all new tokens so far. Decoding stops after `max_new_tokens`, after an end token
    of `model.generation_config`, or when the model's context is full.

    Wrong arguments raise an error at once, before the first step. By hand: the lesson on decoding.
    """
    if not isinstance(prompt, str):
        raise ValueError(f"prompt must be one string, not {prompt!r:.80}")
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens is {max_new_tokens}: it must be at least 1")
    inputs = encode(model, tokenizer, prompt)
    return _steps(model, tokenizer, prompt, inputs, max_new_tokens, choose)


def _steps(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    inputs: BatchEncoding,
    max_new_tokens: int,
    choose: Callable[[torch.Tensor], torch.Tensor | int],
) -> Iterator[DecodingStep]:
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    ends, context = end_ids(model), context_length(model)

    def decode(row: torch.Tensor) -> str:
        options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
        return str(tokenizer.decode(row, **options))

    prompt_length, text = len(decode(ids[0])), prompt
    known = inspect.signature(model.forward).parameters
    kv_cache = "cache" if "cache" in known else "past_key_values"  # before transformers 5.24
    unread, cache = ids, None
    for _ in range(max_new_tokens):
        outputs = forward_pass(model, unread, mask, **{kv_cache: cache}, use_cache=True)
        cache = getattr(outputs, kv_cache, None)
        logits = outputs.logits[0, -1].float()
        check_finite(logits, f"the logits after {text[-40:]!r}", model)
        token_id, last = int(choose(logits)), len(logits) - 1
        if not 0 <= token_id <= last:
            raise ValueError(f"choose gave {token_id}: token ids here go from 0 to {last}")
        new = ids.new_tensor([[token_id]])
        ids, mask = torch.cat([ids, new], dim=1), torch.cat([mask, mask[:, -1:]], dim=1)
        unread = ids if cache is None else new  # without a KV cache, all tokens are read again
        text = prompt + decode(ids[0])[prompt_length:]
        yield DecodingStep(token_id, logits.softmax(dim=-1), text)
        if token_id in ends or (context is not None and ids.shape[1] > context):
            return
