"""A prompt with tokens chosen after it, and what may come next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tutorial_utils.decoding import context_length, encode, end_ids, forward_pass, token_strings
from tutorial_utils.lessons.explorer import check_logits


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
    """`prompt` followed by the token ids `chosen`, in one forward pass.

    By hand: the lesson on next-token decoding. Errors as in `encode`, and `ValueError` where
    prompt and tokens exceed the model's context, or its logits are not finite.
    """
    inputs = encode(model, tokenizer, prompt)
    new = torch.tensor([list(chosen)], dtype=torch.long)  # (1, new tokens)
    new = new.to(inputs["input_ids"].device)
    ids = torch.cat([inputs["input_ids"], new], dim=1)
    context = context_length(model)
    if context is not None and ids.shape[1] > context:
        raise ValueError(
            f"the text is too long: it has {ids.shape[1]} tokens, and this model reads at most "
            f"{context}; shorten the prompt or choose fewer tokens"
        )
    count = new.shape[1] + 1  # the last position of the prompt, and each new token
    outputs = forward_pass(model, ids, torch.ones_like(ids), use_cache=False, logits_to_keep=count)
    logits = outputs.logits[0, -count:].float()  # (new tokens + 1, vocab)
    check_logits(logits, "the model's logits")
    log_probs = logits[:-1].log_softmax(dim=-1).gather(-1, new[0, :, None])[:, 0]
    ended = (len(chosen) > 0 and int(chosen[-1]) in end_ids(model)) or ids.shape[1] == context
    return Continuation("".join(token_strings(tokenizer, new[0])), log_probs, logits[-1], ended)
