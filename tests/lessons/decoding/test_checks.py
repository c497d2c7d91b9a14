"""The checks of lesson 03 say right to right answers, and give a hint for the usual wrong ones."""

import pytest
import torch

from tiny_models import make_gpt2, make_llama
from tutorial_utils import decoding_steps, load_model
from tutorial_utils.lessons.checks import check_continue_until, check_penalise, check_tokens_kept

PROMPT = "The capital of France is Paris."


def right_count(probs, top_p):
    return min(more_than_all(probs, top_p), len(probs))


def unsorted(probs, top_p):
    return int((probs.cumsum(dim=-1) < top_p).sum()) + 1


def one_too_few(probs, top_p):
    return right_count(probs, top_p) - 1


def goes_past_an_exact_sum(probs, top_p):
    return int((probs.sort(descending=True).values.cumsum(dim=-1) <= top_p).sum()) + 1


def more_than_all(probs, top_p):
    return int((probs.sort(descending=True).values.cumsum(dim=-1) < top_p).sum()) + 1


def a_count_for_each(probs, top_p):
    return probs.sort(descending=True).values.cumsum(dim=-1) < top_p


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (right_count, "Right"),
        (lambda probs, top_p: torch.tensor(right_count(probs, top_p)), "Right"),
        (lambda probs, top_p: ..., "Not tried yet"),
        (lambda probs, top_p: None, "is there a `return`?"),
        (lambda probs, top_p: 2.0, "expected an int, got float"),
        (a_count_for_each, "count with sum()"),
        (unsorted, "sorted"),
        (one_too_few, "is kept too"),
        (goes_past_an_exact_sum, "that is enough"),
        (more_than_all, "never more than all"),
    ],
)
def test_tokens_kept(answer, said, capsys):
    check_tokens_kept(answer)
    assert said in capsys.readouterr().out


def right_penalty(logits, ids, penalty):
    said, new_logits = logits[ids], logits.clone()
    new_logits[ids] = torch.where(said > 0, said / penalty, said * penalty)
    return new_logits


def only_divides(logits, ids, penalty):
    new_logits = logits.clone()
    new_logits[ids] = logits[ids] / penalty
    return new_logits


def once_for_each_time(logits, ids, penalty):
    for token_id in ids:
        logits = right_penalty(logits, token_id[None], penalty)
    return logits


def in_place(logits, ids, penalty):
    logits[ids] = torch.where(logits[ids] > 0, logits[ids] / penalty, logits[ids] * penalty)
    return logits


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (right_penalty, "Right"),
        (lambda logits, ids, penalty: ..., "Not tried yet"),
        (lambda logits, ids, penalty: logits[ids], "expected shape (6,), got (1,)"),
        (only_divides, "dividing makes a negative logit likelier"),
        (once_for_each_time, "penalise each token once"),
        (in_place, "work on a copy"),
    ],
)
def test_penalise(answer, said, capsys):
    check_penalise(answer)
    assert said in capsys.readouterr().out


@pytest.fixture(scope="module", params=[make_llama, make_gpt2])
def loaded(request, tmp_path_factory):
    return load_model(str(request.param(tmp_path_factory.mktemp("checks"))), device="cpu")


def right_stop(model, tokenizer, prompt, stop, max_new_tokens):
    for step in decoding_steps(model, tokenizer, prompt, max_new_tokens=max_new_tokens):
        found = step.text.find(stop, len(prompt))
        if found >= 0:
            return step.text[: found + len(stop)]
    return step.text


def finds_it_in_the_prompt(model, tokenizer, prompt, stop, max_new_tokens):
    text = right_stop(model, tokenizer, prompt, "\x00", max_new_tokens)
    return text[: text.find(stop) + len(stop)] if stop in text else text


def looks_at_single_tokens(model, tokenizer, prompt, stop, max_new_tokens):
    before = prompt
    for step in decoding_steps(model, tokenizer, prompt, max_new_tokens=max_new_tokens):
        found = step.text[len(before) :].find(stop)
        if found >= 0:
            return step.text[: len(before) + found + len(stop)]
        before = step.text
    return before


def does_not_cut(model, tokenizer, prompt, stop, max_new_tokens):
    for step in decoding_steps(model, tokenizer, prompt, max_new_tokens=max_new_tokens):
        if stop in step.text[len(prompt) :]:
            break
    return step.text


def gives_nothing_at_the_end(model, tokenizer, prompt, stop, max_new_tokens):
    text = right_stop(model, tokenizer, prompt, stop, max_new_tokens)
    return text if stop in text else None


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (right_stop, "Right"),
        (lambda *args: ..., "Not tried yet"),
        (lambda *args: 1, "expected text, got int"),
        (gives_nothing_at_the_end, "is there a `return`?"),
        (finds_it_in_the_prompt, "after the prompt only"),
        (looks_at_single_tokens, "look in the text, not in the tokens"),
        (does_not_cut, "cut the text after the stop"),
    ],
)
def test_continue_until(loaded, answer, said, capsys):
    check_continue_until(lambda *args: answer(*loaded, *args), *loaded, PROMPT)
    assert said in capsys.readouterr().out
