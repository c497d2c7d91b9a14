"""A prompt with tokens chosen after it is what the model says of the whole text."""

from __future__ import annotations

import pytest
import torch

from tiny_models import make_gpt2, make_llama
from tutorial_utils import load_model
from tutorial_utils.lessons.decoding.steps import continue_prompt


@pytest.fixture(scope="module", params=[make_llama, make_gpt2], ids=["llama", "gpt2"])
def loaded(request, tmp_path_factory):
    return load_model(str(request.param(tmp_path_factory.mktemp("model"), context=24)))


@pytest.mark.parametrize("chosen", [[70, 80, 90], []])
def test_a_continuation_is_what_the_model_says_of_the_whole_text(loaded, chosen):
    model, tokenizer = loaded
    prompt = "Anna has the"
    found = continue_prompt(model, tokenizer, prompt, chosen)
    ids = torch.tensor([tokenizer(prompt)["input_ids"] + chosen])
    with torch.no_grad():
        logits = model(ids).logits[0].float()
    log_probs = logits.log_softmax(dim=-1)
    places = range(-len(chosen) - 1, -1)
    expected = [log_probs[place, i].item() for place, i in zip(places, chosen, strict=True)]
    assert found.log_probs.tolist() == pytest.approx(expected, abs=1e-4)
    assert torch.allclose(found.logits, logits[-1], atol=1e-4)
    assert not found.ended
    assert found.text == "".join(tokenizer.decode([i]) for i in chosen)


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


def test_logits_that_are_not_finite_are_no_continuation(tmp_path):
    model, tokenizer = load_model(make_llama(tmp_path))
    model.lm_head.weight.data[3] = torch.nan
    with pytest.raises(ValueError, match="the model's logits are not finite"):
        continue_prompt(model, tokenizer, "Anna")
