"""Checks of the exercises of the first lesson."""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tutorial_utils.decoding import encode, next_token_probs, token_strings
from tutorial_utils.lessons.exercise import NotYet, as_number, call, exercise


@exercise("the model's most probable next token after your prompt is ' Rome'.")
def check_my_prompt(
    my_prompt: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    """The first choice after the prompt is " Rome"."""
    if not isinstance(my_prompt, str):
        raise NotYet(f"expected a string, got {type(my_prompt).__name__}.", "put it in quotes.")
    try:
        encode(model, tokenizer, my_prompt)
    except ValueError as error:
        raise NotYet(f"{error}.", "one or two sentences are enough.") from None
    probs = next_token_probs(model, tokenizer, my_prompt)[0]
    best = token_strings(tokenizer, probs.argmax().view(1))[0]
    if best == " Rome":
        return
    if my_prompt != my_prompt.rstrip():
        hint = "your prompt ends with a space, which belongs to the next token."
    elif "Rome" in my_prompt:
        hint = (
            "a small model has learned few kinds of sentence, and after others it guesses. "
            "Say where somebody lives, as this lesson's prompt says where somebody works."
        )
    else:
        hint = "say where somebody lives, and begin to say it again."
    found = f"the most probable next token is {best!r}, with probability {probs.max():.2f}."
    raise NotYet(found, hint)


@exercise("tested with several model sizes, and with one to eight bytes per number.")
def check_weights_gib(weights_gib: Callable) -> None:
    """`weights_gib(parameters, dtype)` is the size of the weights in GiB."""
    for parameters, dtype in [
        (2**30, torch.float32),
        (8_030_261_248, torch.bfloat16),
        (1_968_256, torch.float16),
        (1_968_256, torch.float64),
        (8_030_261_248, torch.float8_e4m3fn),
        (2**30, torch.int8),
        (2**30, torch.int16),
    ]:
        case = f"{parameters:,} parameters in {dtype}"
        got = as_number(
            call(weights_gib, parameters, dtype, case=case), case=case, hint="return one number."
        )
        want = parameters * dtype.itemsize / 2**30
        mistakes = {
            "a GiB is 2**30 bytes, a GB is 10**9.": parameters * dtype.itemsize / 1e9,
            "the number of bytes depends on the dtype: `dtype.itemsize`.": parameters * 4 / 2**30,
            "`dtype.itemsize` is already in bytes, not in bits.": want / 8,
            "your result is in MiB, of 2**20 bytes each. A GiB is 2**30 bytes.": want * 2**10,
        }
        if abs(got - want) > 1e-3 * want:
            near = [hint for hint, wrong in mistakes.items() if abs(got - wrong) < 1e-3 * wrong]
            hint = (
                near[0]
                if near
                else "multiply the parameters by the bytes of each, and divide by 2**30."
            )
            raise NotYet(f"for {case}, expected {want:.4g}, got {got:.4g}.", hint)
