"""Models with a configuration for the text inside theirs, as Gemma 3: sizes are read from there."""

from __future__ import annotations

import re

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma3Config

from notebook_tools import LESSONS, ROOT
from tiny_models import NumberTokenizer, count_hooks
from tutorial_utils import (
    contrast_layers,
    decoding_steps,
    encode,
    find_decoder_layers,
    harvest_activations,
    lens_choices,
    mean_differences,
    next_token_logits,
    patch_each,
    read_activations,
    read_harvest,
    read_parts,
    sample_steered,
)

SIZES = "num_hidden_layers|hidden_size|vocab_size|num_attention_heads|num_key_value_heads|head_dim"
SIZES += "|intermediate_size|max_position_embeddings|rms_norm_eps"
AT_THE_TOP = re.compile(rf"\bmodel\.config\.({SIZES})\b|= ?model\.config(\\n|$)", re.MULTILINE)
# In Gemma 4 it differs between layers, and reading it from the configuration is an error.
DIFFERS = re.compile(r'config(\.|, \\?")head_dim')
PROMPT = "5 9 17 30 22"


def test_nothing_reads_sizes_at_the_top_of_a_configuration():
    pages = [*LESSONS, *(ROOT / "tutorial_utils").rglob("*.py"), *(ROOT / "docs").glob("*.md")]
    found = [
        f"{path.name}: {match[0]}"
        for path in pages
        for rule in (AT_THE_TOP, DIFFERS)
        for match in rule.finditer(path.read_text(encoding="utf-8"))
    ]
    assert AT_THE_TOP.search('"n = model.config.num_hidden_layers"')
    assert DIFFERS.search(r"size = getattr(config, \"head_dim\", None)")
    assert not found, "read them from model.config.get_text_config()"


@pytest.fixture(scope="module")
def gemma():
    """A tiny Gemma 3 with its image part, and windows of 4 tokens in most layers."""
    text = {"vocab_size": 128, "hidden_size": 32, "intermediate_size": 48, "sliding_window": 4}
    text |= {"num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 2}
    text |= {"head_dim": 8, "initializer_range": 0.3, "max_position_embeddings": 64}
    vision = {"model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 48}
    vision |= {"num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 28, "patch_size": 14}
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    model.generation_config.eos_token_id = None
    return model, NumberTokenizer()


def test_every_function_works(gemma, tmp_path):
    model, tokenizer = gemma
    inputs = encode(model, tokenizer, PROMPT)
    assert len(find_decoder_layers(model)) == 6
    stream = read_activations(model, **inputs)
    logits = next_token_logits(model, tokenizer, PROMPT)
    assert lens_choices(model, stream, [6], k=1)[1][0, 0, -1] == logits.argmax()
    (step,) = decoding_steps(model, tokenizer, PROMPT, max_new_tokens=1)
    assert step.token_id == logits.argmax()
    patched = patch_each(model, tokenizer, PROMPT, stream, lambda scores: scores[:, 7])
    torch.testing.assert_close(patched, logits[0, 7].expand_as(patched), rtol=1e-3, atol=1e-4)
    assert read_parts(model, part="mlp", **inputs)[6].shape == (1, 5, 32)
    directions = mean_differences(model, tokenizer, [PROMPT], ["8 3 4"])
    steered = sample_steered(model, tokenizer, [PROMPT, "8 3"], {3: directions[3]}, 1)
    assert steered.losses.isfinite().all()
    (tmp_path / "prompts.txt").write_text(f"{PROMPT}\n8 3\n")
    harvest_activations(model, tokenizer, tmp_path / "prompts.txt", tmp_path / "out", layers=6)
    torch.testing.assert_close(read_harvest(tmp_path / "out")[6][0], stream[6][0, -1])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_cache": False},
        {"cache_implementation": "static"},
        {"prefill_chunk_size": 2},
        {"prefill_chunk_size": 2, "cache_implementation": "static"},
    ],
    ids=lambda options: " and ".join(options) or "no options",
)
@pytest.mark.parametrize("name", ["gemma", "pocket"])
def test_dola_is_the_same_whatever_generate_is_asked_for(name, options, request):
    """Sliding windows, caches of a fixed size, prompts read in chunks."""
    model, tokenizer = request.getfixturevalue(name)
    settings = {"do_sample": False, "max_new_tokens": 6, "min_new_tokens": 6, "pad_token_id": 0}
    texts = {"gemma": [PROMPT, "8 3"], "pocket": ["The capital of France is", "Anna has"]}[name]
    for prompts in (texts[0], texts):
        inputs = encode(model, tokenizer, prompts)
        found = []
        for asked in ({}, options):
            with contrast_layers(model, [0, 2, 4]) as contrast:
                ids = model.generate(**inputs, logits_processor=[contrast], **settings, **asked)
            found.append((ids, torch.stack(contrast.picked)))
        assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])
    assert count_hooks(model) == 0
