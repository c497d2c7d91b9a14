"""Checks of the exercises on decoding."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, RepetitionPenaltyLogitsProcessor

from tutorial_utils.decoding import decoding_steps
from tutorial_utils.lessons.exercise import (
    NotYet,
    as_tensor,
    as_whole_number,
    call,
    exercise,
    same_tensor,
)


@exercise("tested with flat and with peaked distributions.")
def check_tokens_kept(tokens_kept: Callable) -> None:
    """`tokens_kept(probs (vocab,), top_p)` counts the nucleus; sums here are exact in binary."""
    flat, mixed = torch.full((8,), 0.125), torch.tensor([0.125, 0.25, 0.125, 0.5])
    cases = [(mixed, 0.6, 2), (mixed, 0.4, 1), (mixed, 0.75, 2), (flat, 0.9, 8), (flat, 0.5, 4)]
    cases.append((torch.full((3,), 0.333), 1.0, 3))  # the sum stays below 1, as rounded ones do
    hints = {
        -1: "the token that brings the sum to top_p is kept too.",
        1: "if the sum is exactly top_p, no further token is needed.",
    }
    for probs, top_p, want in cases:
        case = f"probs {probs.tolist()} and top_p {top_p}"
        got = call(tokens_kept, probs, top_p, case=case)
        if isinstance(got, torch.Tensor) and got.numel() != 1:
            found = f"for {case}, expected one number, got a tensor of shape {tuple(got.shape)}."
            raise NotYet(found, "count with sum().")
        got = as_whole_number(got, case=case, hint="use int(...).")
        if got > len(probs):
            found = f"for {case}, got {got}, but there are only {len(probs)} tokens."
            raise NotYet(
                found, "a rounded sum can stay below 1: never count more tokens than there are."
            )
        if got != want:
            unsorted = int((probs.cumsum(dim=-1) < top_p).sum()) + 1
            hint = hints.get(got - want, "add up the most probable tokens first.")
            hint = "are the probabilities sorted, the highest first?" if got == unsorted else hint
            raise NotYet(f"for {case}, expected {want}, got {got}.", hint)


@exercise("the same as transformers' repetition_penalty, for positive and for negative logits.")
def check_penalise(penalise: Callable) -> None:
    """`penalise(logits (vocab,), ids (seq,), penalty)` against transformers' own processor."""
    logits = torch.tensor([2.0, -1.0, 0.5, 3.0, -4.0, 0.0])
    cases = {
        "a token with a positive logit": ([3], 2.0, "divide positive logits by the penalty."),
        "a token with a negative logit": ([4], 2.0, "dividing a negative logit makes it higher."),
        "a token that occurs twice": (
            [0, 1, 0, 1],
            2.0,
            "penalise each token once, not each time that it occurs.",
        ),
        "a penalty of 1.5": ([0, 1], 1.5, "the penalty is an argument of the function."),
        "all tokens": ([0, 1, 2, 3, 4, 5], 2.0, "there are positive and negative logits here."),
    }
    for case, (said, penalty, hint) in cases.items():
        ids = torch.tensor(said)
        process = RepetitionPenaltyLogitsProcessor(penalty)
        want, everything = (
            process(which[None], logits[None].clone())[0] for which in (ids, torch.arange(6))
        )
        mistakes = {
            "only the tokens that occur in `ids` are penalised.": everything,
            "return what you computed: these are the logits that you were given.": logits,
        }
        got = as_tensor(call(penalise, logits, ids, penalty, case=case), case=case)
        if got.shape != logits.shape:
            hint = "return all logits, (vocab,), and change only those of `ids`."
        same_tensor(got, want, case=case, hint=hint, mistakes=mistakes)


@exercise(
    "the text ends at the first stop after the prompt, even if the stop is in the middle of a "
    "token or spread over two."
)
def check_continue_until(
    continue_until: Callable,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
) -> None:
    """`continue_until(prompt, stop, max_new_tokens)` on stops taken from what the model writes."""
    never, half = "\x00 never \x00", prompt[: len(prompt) // 2 + 1]
    texts = _texts(model, tokenizer, prompt, 16)
    cases = {
        "a stop that does not occur": (never, "return the whole text after the last step."),
        "a stop that the prompt contains": (prompt[-1], "look for it only after the prompt."),
    }
    if texts[-1]:
        begun = prompt[-1] + texts[-1][:2]
        cases["a stop that begins in the prompt"] = (begun, "look for it only after the prompt.")
    across = _across_two_tokens(texts)
    if across:
        cases["a stop spread over two tokens"] = (across, "look in the text, not in the tokens.")
    if texts[-1]:
        middle = texts[-1][: len(texts[-1]) // 2 + 1][-3:]
        cases["a stop that occurs"] = (middle, "stop at the first place where it occurs.")
        long = texts[-1][: len(texts[-1]) // 2 + 1]
        cases["a long stop, right after the prompt"] = (long, "look in all of the new text.")
    for case, (stop, hint) in cases.items():
        _check_stop(continue_until, prompt, stop, texts, case, hint)
    for stop, some in _completed_last(texts):
        case, hint = "a stop that the last token completes", "look after the last step too."
        _check_stop(continue_until, prompt, stop, some, case, hint)
    case, hint = "another prompt and 3 new tokens", "use `prompt` and `max_new_tokens` as given."
    _check_stop(continue_until, half, never, _texts(model, tokenizer, half, 3), case, hint)
    for letter in ("a", "e", " "):
        again = _texts(model, tokenizer, letter, 16)
        if letter in again[-1]:
            case, hint = "a prompt that occurs again", "the new text begins at len(prompt)."
            _check_stop(continue_until, letter, never, again, case, hint)
            break


def _texts(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, n: int) -> list:
    """The new text after each of `n` greedy steps."""
    steps = decoding_steps(model, tokenizer, prompt, max_new_tokens=n)
    return [step.text[len(prompt) :] for step in steps]


def _check_stop(
    continue_until: Callable, prompt: str, stop: str, texts: list[str], case: str, hint: str
) -> None:
    got = call(continue_until, prompt, stop, len(texts), case=case)
    # The text after the first step in which the stop occurs, or after the last step.
    text = prompt + next((text for text in texts if stop in text), texts[-1])
    found = text.find(stop, len(prompt))
    want = text[: found + len(stop)] if found >= 0 else text
    if not isinstance(got, str):
        raise NotYet(f"for {case}, expected text, got {type(got).__name__}.", "return a str.")
    if got == want:
        return
    if found >= 0:
        mistakes = {text: "cut the text after the stop.", text[:found]: "keep the stop itself."}
        hint = mistakes.get(got, hint)
    if prompt + got == want:
        hint = "return the prompt too, in front of the new text."
    raise NotYet(f"for {case}, {stop!r}, expected {want!r}, got {got!r}.", hint)


def _completed_last(texts: list[str]) -> list[tuple[str, list[str]]]:
    """A stop that the last of some steps completes, and the texts of these steps; [] for none."""
    for count in range(len(texts), 1, -1):
        before, after = texts[count - 2 : count]
        for start in range(len(after) - 2, -1, -1):
            if after[start:-1] not in before:
                return [(after[start:-1], texts[:count])]
    return []


def _across_two_tokens(texts: list[str]) -> str | None:
    """Two characters, the last of one token and the first of the next, not found any earlier."""
    for before, after in pairwise(texts):
        pair = after[len(before) - 1 : len(before) + 1]
        if before and after.startswith(before) and len(pair) == 2 and pair not in before:
            return pair
    return None
