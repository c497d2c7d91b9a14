"""What attention and MLP give out is what the layer adds, and can be put back."""

from __future__ import annotations

import pytest
import torch

import architectures
from streams import LAYERS, random_ids, with_stream
from tiny_models import count_hooks
from tutorial_utils import read_activations, read_parts
from tutorial_utils.activations.parts import find_norm_behind, hooked_part

MASKS = {
    "left": torch.tensor([[0, 0, 0, 1, 1, 1, 1], [1] * 7]),
    "right": torch.tensor([[1, 1, 1, 1, 1, 0, 0], [1] * 7]),
}


@pytest.mark.parametrize(
    "kind", ["llama", "gpt2", "gpt_neox", "gptj", "falcon", "opt", "bloom", "mpt", "phi", "mixtral"]
)
def test_parts_add_up_to_what_a_layer_adds(kind):
    """OPT's MLP gives (batch * seq, hidden); BLOOM's and MPT's parts add the stream themselves."""
    model = architectures.build_if_known(kind)
    inputs = architectures.inputs_of(model)
    stream = read_activations(model, **inputs)
    attention, mlp = (read_parts(model, part=part, **inputs) for part in ("attention", "mlp"))
    for i in attention:
        assert attention[i].shape == stream[i].shape
        torch.testing.assert_close(stream[i] - stream[i - 1], attention[i] + mlp[i])
    assert count_hooks(model) == 0


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("gemma2", ("post_attention_layernorm", "post_feedforward_layernorm")),
        ("olmo2", ("post_attention_layernorm", "post_feedforward_layernorm")),
        ("glm4", ("post_self_attn_layernorm", "post_mlp_layernorm")),
        ("afmoe", ("post_attention_layernorm", "post_mlp_layernorm")),
        ("llama", (None, None)),
    ],
)
def test_norms_behind_the_parts(kind, names):
    model = architectures.build_if_known(kind)
    layer = model.model.layers[1]
    found = [find_norm_behind(layer, part) for part in ("attention", "mlp")]
    assert found == [name and getattr(layer, name) for name in names]
    if any(found):
        inputs = architectures.inputs_of(model)
        stream = read_activations(model, **inputs)
        given = [read_parts(model, part=part, **inputs)[2] for part in ("attention", "mlp")]
        added = sum(norm(part) for norm, part in zip(found, given))
        torch.testing.assert_close(stream[2] - stream[1], added)


@pytest.mark.parametrize("part", ["attention", "mlp"])
@pytest.mark.parametrize(("side", "last"), [(None, (6, 6)), ("left", (6, 6)), ("right", (4, 6))])
def test_layers_and_positions(model, part, side, last):
    inputs = {"input_ids": random_ids(), "attention_mask": side and MASKS[side]}
    every = read_parts(model, part=part, **inputs)
    assert list(every) == list(range(1, LAYERS + 1))
    chosen = read_parts(model, part=part, layers=[-1, 1], positions=[3, -1], **inputs)
    assert list(chosen) == [LAYERS, 1]
    for layer, hidden in chosen.items():
        assert torch.equal(hidden, every[layer][:, [3, -1]])
    at_last = read_parts(model, part=part, layers=2, positions="last", **inputs)[2]
    assert torch.equal(at_last[:, 0], every[2][[0, 1], list(last)])
    assert at_last.untyped_storage().nbytes() == at_last.nbytes


def test_nothing_runs_behind_the_last_layer_asked_for(llama, monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("must not run")

    expected = read_parts(llama, random_ids(), "mlp")[2]
    monkeypatch.setattr(llama.model.layers[2], "forward", fail)
    monkeypatch.setattr(llama.lm_head, "forward", fail)
    assert torch.equal(read_parts(llama, random_ids(), "mlp", layers=2)[2], expected)


@pytest.mark.parametrize("kind", ["llama", "opt", "bloom"])
@pytest.mark.parametrize("part", ["attention", "mlp"])
def test_a_part_put_back_where_it_was_changes_nothing(kind, part):
    """Also where the hook reshapes, or takes the stream off and puts it back."""
    model = architectures.build_if_known(kind)
    inputs = architectures.inputs_of(model)
    given = read_parts(model, part=part, **inputs)
    batch, push = len(inputs["input_ids"]), torch.randn(given[2].shape)
    with torch.no_grad():
        plain = model(**inputs).logits
        with hooked_part(model, part, 2, batch, lambda hidden: given[2]):
            same = model(**inputs).logits
        with hooked_part(model, part, 2, batch, lambda hidden: given[2] + push):
            other = model(**inputs).logits
    torch.testing.assert_close(same, plain)
    assert (other - plain).abs().max() > 1e-4


def test_unknown_options_are_refused_with_the_nearest_known_one(model):
    for name, near in (("attention_masks", "attention_mask"), ("layer", "layers")):
        with pytest.raises(TypeError, match=f"no option '{name}'.* nearest known name is '{near}'"):
            read_parts(model, random_ids(), "mlp", **{name: 1})
    read = read_parts(model, random_ids(), "mlp", output_attentions=False)
    assert list(read) == list(range(1, LAYERS + 1))
    assert not count_hooks(model)


@pytest.mark.parametrize(
    ("kind", "part", "layers", "message"),
    [
        ("mamba", "attention", None, r"has no part that is known as attention.*mixer"),
        ("longcat_flash", "attention", 1, "has more than one part that is known as attention"),
        ("llama", "head", None, 'part is "attention" or "mlp", not \'head\''),
        ("llama", None, None, 'part is "attention" or "mlp", not None'),
        ("llama", "mlp", 0, "layer 0 is the embedding output and has no parts"),
        ("llama", "mlp", [1, 9], "layer 9 is not in this model"),
    ],
)
def test_what_is_not_there_is_named(kind, part, layers, message):
    model = architectures.build_if_known(kind)
    with pytest.raises(ValueError, match=message):
        read_parts(model, part=part, layers=layers, **architectures.inputs_of(model))
    assert not count_hooks(model)


def test_a_layer_that_the_model_leaves_out_is_named(llama):
    layer, outputs = llama.model.layers[1], []
    handle = layer.register_forward_hook(lambda module, args, output: outputs.append(output))
    read_parts(llama, random_ids(), "mlp")
    handle.remove()
    layer.forward = lambda hidden_states, **kwargs: with_stream(outputs[0], hidden_states)
    with pytest.raises(ValueError, match="the model skipped decoder layer 2, or this part of it"):
        read_parts(llama, random_ids(), "mlp")
