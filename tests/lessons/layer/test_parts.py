"""A decoder layer is open only where its parts, put together in Llama's way, give what it gives."""

from __future__ import annotations

import pytest
import torch

from architectures import TABLES_HOLD, build_if_known, inputs_of
from tiny_models import count_hooks
from tutorial_utils.lessons.layer import open_layers, tiny_llama

pytestmark = pytest.mark.usefixtures("one_thread")

# In what the first open layer of some types differs from Llama's, in a few of its words.
OPEN = {
    "llama": [],
    "mistral": [],
    "qwen2": [],
    "qwen3": ["a norm of their own"],
    "gpt2": ["LayerNorm", "one matrix", "no rotary positions", "not gated"],
    "gpt_neox": ["LayerNorm", "one matrix", "of a head are turned", "before attention", "gated"],
    "gemma": [],
    "gemma2": ["after attention", "capped at 50"],
    "gemma3_text": ["after attention", "a norm of their own"],
    "phi": ["LayerNorm", "before attention", "not gated"],
    "phi3": ["one matrix"],
    "mixtral": ["a MixtralSparseMoeBlock, is not taken apart"],
    "qwen3_moe": ["is not taken apart"],
    "starcoder2": ["LayerNorm", "not gated"],
}
# Other pairs are turned, other norms, no attention, no single stream.
SHUT = ["cohere", "olmo2", "mamba", "bloom", "gpt_oss", "deepseek_v3", "bert", "reformer", "blt"]


@pytest.mark.parametrize("model_type", OPEN)
def test_layers_that_open(model_type):
    model = build_if_known(model_type)
    opened = open_layers(model, **inputs_of(model))
    assert list(opened) == [1, 2, 3, 4]
    differs = " and ".join(opened[1].differs)
    assert all(words in differs for words in OPEN[model_type]), differs
    assert bool(differs) == bool(OPEN[model_type]), differs
    assert count_hooks(model) == 0


@pytest.mark.parametrize("model_type", SHUT)
def test_layers_that_do_not_open_are_left_out(model_type):
    model = build_if_known(model_type)
    assert open_layers(model, **inputs_of(model)) == {}
    assert count_hooks(model) == 0


@pytest.mark.skipif(not TABLES_HOLD, reason="counted with another version of transformers")
def test_layers_whose_parts_do_not_fit_are_left_out():
    """Each of SmolLM3's layers is given angles, and some do not use them."""
    model = build_if_known("smollm3")
    uses = [i for i, used in enumerate(model.config.no_rope_layers, start=1) if used]
    assert list(open_layers(model, **inputs_of(model))) == uses != [1, 2, 3, 4]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    model = tiny_llama(50).to(dtype)
    assert list(open_layers(model, torch.arange(9)[None])) == [1, 2, 3]


def test_the_tiny_llama_is_the_same_each_time_and_leaves_random_numbers_alone():
    torch.manual_seed(5)
    want = torch.rand(2)
    torch.manual_seed(5)
    first, second = tiny_llama(50), tiny_llama(50)
    assert torch.equal(first.lm_head.weight, second.lm_head.weight)
    assert torch.equal(torch.rand(2), want)
    opened = open_layers(first, torch.arange(9)[None])
    assert opened[1].differs == [] and opened[1].size == 16
