"""Checks of the exercises of lesson 00."""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tutorial_utils.decoding import encode, next_token_probs, token_strings
from tutorial_utils.lessons.exercise import NotYet, call, exercise


@exercise("the model's most probable next token after your prompt is ' Rome'.")
def check_my_prompt(
    my_prompt: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    """The first choice after the prompt begins " Rome"."""
    if not isinstance(my_prompt, str):
        raise NotYet(f"expected a string, got {type(my_prompt).__name__}.", "put it in quotes.")
    try:
        encode(model, tokenizer, my_prompt)
    except ValueError as error:
        raise NotYet(f"{error}.", "one or two sentences are enough.") from None
    probs = next_token_probs(model, tokenizer, my_prompt)[0]
    best = token_strings(tokenizer, probs.argmax().view(1))[0]
    if best != " Rome":
        if my_prompt != my_prompt.rstrip():
            hint = "your prompt ends with a space, which belongs to the next token."
        else:
            hint = "say where somebody lives, and begin to say it again."
        found = f"the most probable next token is {best!r}, with probability {probs.max():.2f}."
        raise NotYet(found, hint)


@exercise("three sizes of model in two to four bytes a number.")
def check_weights_gib(weights_gib: Callable) -> None:
    """`weights_gib(parameters, dtype)` is the size of the weights in GiB."""
    for parameters, dtype in [
        (2**30, torch.float32),
        (8_030_261_248, torch.bfloat16),
        (1_968_256, torch.float16),
    ]:
        case = f"{parameters:,} parameters in {dtype}"
        got = call(weights_gib, parameters, dtype, case=case)
        want = parameters * dtype.itemsize / 2**30
        if not isinstance(got, (int, float)):
            raise NotYet(f"for {case} expected a number, got {type(got).__name__}.", "divide.")
        if abs(got - want) > 1e-3 * want:
            hint = "parameters times bytes of each, over the bytes of one GiB."
            if abs(got - parameters * dtype.itemsize / 1e9) < 1e-3 * want:
                hint = "a GiB is 2**30 bytes, a GB is 10**9."
            elif abs(got - parameters * 4 / 2**30) < 1e-3 * want:
                hint = "the number of bytes depends on the dtype: `dtype.itemsize`."
            raise NotYet(f"for {case} expected {want:.4g}, got {got:.4g}.", hint)
