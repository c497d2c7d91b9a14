"""The decoding stepper: each click is what the functions give, and what failed leaves no trace."""

from __future__ import annotations

import ipywidgets as widgets
import pytest
import torch

from explorer_parts import find, inside, shown
from tiny_models import make_gpt2, make_llama
from tutorial_utils import filter_logits, load_model, token_strings
from tutorial_utils.lessons.decoding import explorer as module
from tutorial_utils.lessons.decoding.explorer import continuation_html, step_decoding
from tutorial_utils.lessons.decoding.steps import continue_prompt
from tutorial_utils.lessons.explorer import Explorer

PROMPT = "Anna has the red ball."


@pytest.fixture(scope="module", params=[make_llama, make_gpt2], ids=["llama", "gpt2"])
def loaded(request, tmp_path_factory):
    return load_model(str(request.param(tmp_path_factory.mktemp("model"), context=32)))


@pytest.fixture
def explorer(loaded):
    return step_decoding(*loaded, PROMPT)


def candidates(explorer: Explorer) -> list[widgets.Button]:
    rows = [w for w in inside(explorer) if isinstance(w, widgets.FloatProgress)]
    boxes = [w for w in inside(explorer) if set(getattr(w, "children", ())) & set(rows)]
    return [box.children[0] for box in boxes if isinstance(box.children[0], widgets.Button)]


def test_a_candidate_that_is_clicked_is_the_next_token(loaded, explorer):
    model, tokenizer = loaded
    first = continue_prompt(model, tokenizer, PROMPT)
    ids = first.logits.topk(8).indices.tolist()
    bars = [w.value for w in inside(explorer) if isinstance(w, widgets.FloatProgress)]
    assert bars == pytest.approx(first.logits.softmax(-1)[ids].tolist())
    candidates(explorer)[2].click()
    step = continue_prompt(model, tokenizer, PROMPT, [ids[2]])
    text = continuation_html(PROMPT, token_strings(tokenizer, [ids[2]]), step)
    assert text in shown(explorer)
    assert "<b>1</b> new token." in text
    find(explorer, "Step back").click()
    assert "No new token yet." in shown(explorer)
    assert find(explorer, "Step back").disabled


def test_greedy_strategy_is_greedy(loaded, explorer):
    model, tokenizer = loaded
    chosen = []
    for _ in range(3):
        chosen.append(int(continue_prompt(model, tokenizer, PROMPT, chosen).logits.argmax()))
        find(explorer, "Add 1 token").click()
    step = continue_prompt(model, tokenizer, PROMPT, chosen)
    assert continuation_html(PROMPT, token_strings(tokenizer, chosen), step) in shown(explorer)


def test_draws_are_the_same_each_time_and_from_what_the_strategy_keeps(loaded, explorer):
    model, tokenizer = loaded
    find(explorer, "Strategy").value = "sample, top-k 5"
    assert shown(explorer).count("the strategy drops it") == 3  # of the eight candidates
    for _ in range(2):
        generator, drawn = torch.Generator().manual_seed(0), []
        for _ in range(3):
            logits = continue_prompt(model, tokenizer, PROMPT, drawn).logits
            probs = filter_logits(logits, top_k=5).softmax(dim=-1)
            drawn.append(int(probs.multinomial(1, generator=generator)))
            find(explorer, "Add 1 token").click()
        step = continue_prompt(model, tokenizer, PROMPT, drawn)
        assert continuation_html(PROMPT, token_strings(tokenizer, drawn), step) in shown(explorer)
        find(explorer, "Start again").click()


def test_a_text_that_has_ended_takes_no_more(explorer):
    for _ in range(4):  # the context holds 32 tokens
        find(explorer, "Add 10 tokens").click()
    assert "The text has ended" in shown(explorer)
    assert find(explorer, "Add 1 token").disabled and candidates(explorer)[0].disabled
    find(explorer, "Step back").click()
    assert not find(explorer, "Add 1 token").disabled
    assert "The text has ended" not in shown(explorer)


def test_after_a_refused_prompt_nothing_can_be_chosen(explorer):
    find(explorer, "Prompt").value = "word " * 99
    assert find(explorer, "Add 1 token").disabled and find(explorer, "Step back").disabled
    find(explorer, "Prompt").value = "Anna"
    assert not find(explorer, "Add 1 token").disabled


def test_a_token_that_failed_is_not_part_of_the_text(explorer, monkeypatch):
    def broken(*args):
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(module, "continue_prompt", broken)
        candidates(explorer)[0].click()
    assert "This did not work:</b> out of memory" in shown(explorer)
    candidates(explorer)[0].click()
    assert "<b>1</b> new token." in shown(explorer)
