"""What a model's forward pass takes: options that nobody knows, masks that nobody heeds."""

from __future__ import annotations

import pytest
import torch
from accelerate import cpu_offload, hooks

import architectures
from streams import random_ids
from tutorial_utils import read_activations
from tutorial_utils.activations.inputs import check_options, ignores_mask, input_device


@pytest.mark.parametrize(
    ("option", "nearest"),
    [("position", "positions"), ("layer", "layers"), ("attention_maks", "attention_mask")],
)
def test_unknown_option(model, option, nearest):
    message = f"read_activations has no option '{option}'.*nearest known name is '{nearest}'"
    with pytest.raises(TypeError, match=message):
        read_activations(model, random_ids(), **{option: 3})


def test_option_of_another_function(llama):
    with pytest.raises(TypeError, match=r"no option 'detach'.*are layers, positions, to, dtype"):
        read_activations(llama, random_ids(), detach=False)


@pytest.mark.parametrize("model_type", ["llama", "gemma3", "mamba", "mllama"])
def test_known_inputs(model_type):
    """Those of the model, of the parts that it hands them to, and of all of transformers."""
    model = architectures.build(model_type)
    inputs = architectures.inputs_of(model)
    names = [*inputs, "attention_mask", "use_cache", "output_hidden_states", "output_attentions"]
    check_options(model, names, "read_activations", ["layers"])
    read_activations(model, **inputs, output_hidden_states=True)


@pytest.mark.parametrize("model_type", ["llama", "mamba", "rwkv", "xlstm", "recurrent_gemma"])
def test_ignores_mask(model_type):
    model, ignores = architectures.build(model_type), model_type not in ("llama", "mamba")
    assert ignores_mask(model) is ignores
    if ignores:  # asked again, it does not run the model
        model.forward = None
        assert ignores_mask(model)


@pytest.mark.parametrize("offload", ["", "offloaded", "and hooked again"])
def test_input_device(llama, offload):
    """The embedding's weights are on "meta" between passes where they are offloaded."""
    if offload:
        llama = cpu_offload(llama, "cpu")
        assert llama.model.embed_tokens.weight.is_meta
    if offload == "and hooked again":
        hooks.add_hook_to_module(llama.model.embed_tokens, hooks.ModelHook(), append=True)
    assert input_device(llama) == torch.device("cpu")
