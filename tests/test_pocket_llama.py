"""The shipped model is what its card says, and training it goes on where it was stopped.

The figures of the card come from `pocket_llama/evaluate.py`; here the same functions run on fewer
prompts, with the same bars.
"""

import json
import random
from collections import Counter

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

import evaluate
import train
from tutorial_utils import POCKET_LLAMA
from tutorial_utils.models.load import DTYPE
from tutorial_utils.pocket_llama import corpus


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(POCKET_LLAMA)


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(POCKET_LLAMA).float().eval()


def test_files():
    assert sum(file.stat().st_size for file in POCKET_LLAMA.iterdir()) <= 8e6
    with safe_open(POCKET_LLAMA / "model.safetensors", "pt") as weights:
        names = weights.keys()  # it is no dictionary, and cannot be looped over by itself
        assert {weights.get_tensor(name).dtype for name in names} == {torch.float16}


def test_transformers_4_knows_the_tokenizers_class():
    settings = json.loads((POCKET_LLAMA / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"


def test_loads_as_a_llama(model, tokenizer):
    assert type(model) is LlamaForCausalLM
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id


def test_tokenizer_is_like_llamas(tokenizer):
    ids = tokenizer("Trump works at McDonald's.")["input_ids"]
    assert ids[0] == tokenizer.bos_token_id and ids.count(tokenizer.bos_token_id) == 1
    assert len(tokenizer(" McDonald's", add_special_tokens=False)["input_ids"]) > 1
    text = "naïve café 🙂 — 12345\n\n  McDonald's"
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


def test_the_series_prompt(model, tokenizer):
    token, probability = evaluate.prompt_probability(model, tokenizer)
    assert token == " McDonald" and probability >= 0.9


@pytest.mark.parametrize("unseen", [False, True])
def test_recall(model, tokenizer, unseen):
    prompts = evaluate.recall_prompts(300, unseen=unseen)
    assert evaluate.share_right(model, tokenizer, prompts) >= 0.95


def test_world_facts_and_where_they_appear(model, tokenizer):
    facts = evaluate.fact_prompts()
    assert sum(len(pairs) for _, pairs in corpus.FACTS.values()) >= 60
    assert evaluate.share_right(model, tokenizer, facts) >= 0.95
    layers = evaluate.first_layers(model, tokenizer, facts)
    assert sum(layer != 0 for layer in layers) >= 0.95 * len(layers)
    assert sum(layer is not None for layer in layers) >= 0.95 * len(layers)
    counts = Counter(layers)
    assert sum(count >= 0.02 * len(layers) for count in counts.values()) >= 3


def test_stories(model, tokenizer):
    stories = evaluate.sample_stories(model, tokenizer, 40)
    kept = sum(ended and corpus.mood_of(text) is not None for text, ended in stories)
    assert kept >= 0.8 * len(stories)  # few, and other ones in each version: evaluate.py asks 0.9
    assert {"happy", "sad"} <= {corpus.mood_of(text) for text, _ in stories}


def test_repeated_words(model, tokenizer):
    first, second = evaluate.repeat_losses(model, tokenizer, 30)
    assert second <= first / 3


def test_uncertainty(model, tokenizer):
    for start, probs in evaluate.choice_probabilities(model, tokenizer).items():
        assert probs.sum() >= 0.9 and probs.max() <= 0.6, start


def test_held_out_pairs_are_never_trained_on():
    rng = random.Random(1)
    for _ in range(300):
        for start, thing in corpus.draw_facts(rng, 5):
            assert not corpus.held_out(start.split()[0], thing)
        for start, thing in corpus.draw_facts(rng, 3, unseen=True):
            assert corpus.held_out(start.split()[0], thing)
        for pair in corpus.pairs_document(rng).rstrip(".").split(". "):
            assert not corpus.held_out(*pair.split())
    assert corpus.held_out("Trump", "McDonald's")


def test_look_back_heads(tokenizer):
    """Before training, head h of the first layer attends most to the token h + 1 places back."""
    model = train.build_model(0, tokenizer)
    model.config._attn_implementation = "eager"  # old versions have no setter for it
    inputs = tokenizer(corpus.recall_document(random.Random(1)), return_tensors="pt")
    with torch.no_grad():
        heads = model(**inputs, output_attentions=True).attentions[0][0]
    for head, attention in enumerate(heads):
        back = torch.stack([attention.diagonal(-d)[8:].mean() for d in range(8)])
        assert back.argmax() == head + 1 and back.max() > 0.5


def test_moods():
    rng = random.Random(1)
    moods = Counter(corpus.mood_of(corpus.story_document(rng)) for _ in range(400))
    assert set(moods) == {"happy", "sad"} and min(moods.values()) > 140
    assert {corpus.mood_of(corpus.story_opening(rng)[0]) for _ in range(400)} == {None}
    assert corpus.mood_of("Anna was happy. The storm was awful.") is None


@pytest.fixture
def quick(monkeypatch):
    """Training in seconds: few documents, few tokens."""
    monkeypatch.setattr(train, "TOKENS_PER_BATCH", 300)
    monkeypatch.setattr(train, "BATCHES_PER_POOL", 3)
    monkeypatch.setattr(train, "TOKENIZER_DOCUMENTS", 300)
    monkeypatch.setattr(train, "VOCAB", 400)
    monkeypatch.setattr(train, "LAST_STEPS", 2)


def test_stopped_training_goes_on(quick, monkeypatch, tmp_path):
    whole, _, _ = train.train(0, 6, 1e-3, tmp_path / "whole.pt")
    real, steps = train.loss_of, []

    def stops_in_the_second_pool(model, batch):
        steps.append(batch)
        if len(steps) == 5:
            raise KeyboardInterrupt
        return real(model, batch)

    monkeypatch.setattr(train, "loss_of", stops_in_the_second_pool)
    with pytest.raises(KeyboardInterrupt):
        train.train(0, 6, 1e-3, tmp_path / "stopped.pt")
    monkeypatch.setattr(train, "loss_of", real)
    again, _, _ = train.train(0, 6, 1e-3, tmp_path / "stopped.pt")
    for a, b in zip(whole.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_a_checkpoint_of_other_settings_is_refused(quick, tmp_path):
    train.train(0, 1, 1e-3, tmp_path / "checkpoint.pt")
    with pytest.raises(SystemExit, match="of another run"):
        train.train(1, 1, 1e-3, tmp_path / "checkpoint.pt")


def test_shipped_model_loads_again(quick, tmp_path, capsys):
    tokenizer = train.build_tokenizer(0)
    train.ship(train.build_model(0, tokenizer), tokenizer, tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, **{DTYPE: "auto"})
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert model.dtype == torch.float16
    assert again("Anna works")["input_ids"] == tokenizer("Anna works")["input_ids"]
    assert "MB" in capsys.readouterr().out
