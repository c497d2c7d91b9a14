"""What the explorers compute: tokens with their bytes, filtered choices, chosen continuations."""

from __future__ import annotations

import math

import pytest
import torch

from tiny_models import gpt2_tokenizer, llama_tokenizer, make_gpt2, make_llama
from tutorial_utils import load_model
from tutorial_utils.lessons.decoding.steps import continue_prompt
from tutorial_utils.lessons.softmax.explorer import filtered_choice
from tutorial_utils.lessons.tokens.explorer import token_rows

LOGITS = torch.tensor([4.0, 3.0, 2.0, 1.0, 0.0]).log()


@pytest.fixture(scope="module", params=[make_llama, make_gpt2], ids=["llama", "gpt2"])
def loaded(request, tmp_path_factory):
    return load_model(str(request.param(tmp_path_factory.mktemp("model"), context=24)))


@pytest.mark.parametrize("text", ["A café 🙂", " two  spaces", "\n\t", "東京 x", "e\u0301", ""])
@pytest.mark.parametrize("make", [llama_tokenizer, gpt2_tokenizer])
def test_bytes_of_all_tokens_are_those_of_the_text(make, text):
    rows = token_rows(make(), text)
    assert b"".join(row.raw for row in rows) == text.encode()
    assert [row.token_id for row in rows] == make()(text)["input_ids"]


def test_special_tokens_have_no_bytes_wherever_they_stand():
    tokenizer = llama_tokenizer()
    rows = token_rows(tokenizer, "a<|end_of_text|>b")
    assert [row.special for row in rows] == [True, False, True, False]
    assert [row.raw for row in rows] == [b"", b"a", b"", b"b"]
    assert rows[2].text == "<|end_of_text|>"


def test_sentencepiece_bytes_are_single_bytes():
    class Tokenizer:
        all_special_ids = []

        def __call__(self, text, **options):
            return {"input_ids": [0]}

        def convert_ids_to_tokens(self, token_id):
            return "<0xE2>"

        def decode(self, ids, **options):
            return "\N{REPLACEMENT CHARACTER}"

    assert token_rows(Tokenizer(), "x")[0].raw == b"\xe2"


def test_no_filter_keeps_all():
    choice = filtered_choice(LOGITS)
    assert choice.kept.tolist() == [True, True, True, True, False]  # the last has a logit of -inf
    assert choice.mass == pytest.approx(1)
    assert torch.allclose(choice.probs, torch.tensor([0.4, 0.3, 0.2, 0.1, 0.0]))
    expected = -sum(p * math.log2(p) for p in (0.4, 0.3, 0.2, 0.1))
    assert choice.bits == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("settings", "kept", "mass"),
    [
        ({"top_k": 2}, 2, 0.7),
        ({"top_p": 0.65}, 2, 0.7),
        ({"min_p": 0.5}, 3, 0.9),
        ({"top_k": 1}, 1, 0.4),
        ({"temperature": 0.5, "top_k": 2}, 2, 25 / 30),
    ],
)
def test_kept_mass_is_of_the_distribution_before_the_cut(settings, kept, mass):
    choice = filtered_choice(LOGITS, **settings)
    assert int(choice.kept.sum()) == kept
    assert choice.mass == pytest.approx(mass, abs=1e-5)
    assert choice.probs.sum().item() == pytest.approx(1)
    assert choice.bits <= math.log2(kept) + 1e-6


def test_a_choice_says_what_is_wrong():
    with pytest.raises(ValueError, match=r"one row, \(vocab,\), not \(1, 5\)"):
        filtered_choice(LOGITS[None])
    with pytest.raises(ValueError, match="temperature is 0"):
        filtered_choice(LOGITS, temperature=0)


def test_a_continuation_is_what_the_model_says_of_the_whole_text(loaded):
    model, tokenizer = loaded
    prompt, chosen = "Anna has the", [70, 80, 90]
    found = continue_prompt(model, tokenizer, prompt, chosen)
    ids = torch.tensor([tokenizer(prompt)["input_ids"] + chosen])
    with torch.no_grad():
        logits = model(ids).logits[0].float()
    log_probs = logits.log_softmax(dim=-1)
    expected = [log_probs[place, i].item() for place, i in zip((-4, -3, -2), chosen)]
    assert found.log_probs.tolist() == pytest.approx(expected, abs=1e-4)
    assert torch.allclose(found.logits, logits[-1], atol=1e-4)
    assert not found.ended
    assert found.text == "".join(tokenizer.decode([i]) for i in chosen)


def test_nothing_chosen_yet(loaded):
    found = continue_prompt(*loaded, "Anna has the")
    assert found.text == ""
    assert found.log_probs.shape == (0,)
    assert not found.ended


def test_an_end_token_ends_the_text(loaded):
    model, tokenizer = loaded
    assert continue_prompt(model, tokenizer, "Anna", [tokenizer.eos_token_id]).ended
    assert not continue_prompt(model, tokenizer, "Anna", [tokenizer.eos_token_id, 70]).ended


def test_a_full_context_ends_the_text_and_more_is_an_error(loaded):
    model, tokenizer = loaded
    room = 24 - len(tokenizer("Anna")["input_ids"])
    assert not continue_prompt(model, tokenizer, "Anna", [70] * (room - 1)).ended
    assert continue_prompt(model, tokenizer, "Anna", [70] * room).ended
    with pytest.raises(ValueError, match="it has 25 tokens, and this model reads at most 24"):
        continue_prompt(model, tokenizer, "Anna", [70] * (room + 1))
    with pytest.raises(ValueError, match="empty"):
        continue_prompt(model, tokenizer, "")
