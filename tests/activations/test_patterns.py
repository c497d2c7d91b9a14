"""Patterns are what an eager model gives, from a model of any kind, whose settings stay."""

from __future__ import annotations

import threading

import pytest
import torch

import architectures
from streams import LAYERS, build, logits_of, random_ids
from tiny_models import count_hooks
from tutorial_utils import read_activations, read_attention, record_activations

LEFT = torch.tensor([[0, 0, 0, 1, 1, 1, 1], [1] * 7])


def eager_patterns(model, ids, **inputs) -> list[torch.Tensor]:
    """What another model with the same weights gives, loaded with eager attention."""
    eager = type(model)._from_config(model.config, attn_implementation="eager").eval()
    eager.load_state_dict(model.state_dict())
    model.config._attn_implementation = "sdpa"  # they share the configuration
    with torch.no_grad():
        return list(eager.to(model.dtype)(ids, output_attentions=True, **inputs).attentions)


@pytest.mark.parametrize("inputs", [{}, {"attention_mask": LEFT}])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_patterns_are_those_of_an_eager_model(kind, inputs):
    model, ids = build(kind, attn_implementation="sdpa"), random_ids()
    patterns = read_attention(model, ids, **inputs)
    assert list(patterns) == list(range(1, LAYERS + 1))
    for pattern, expected in zip(patterns.values(), eager_patterns(model, ids, **inputs)):
        assert torch.equal(pattern, expected) and pattern.shape == (2, 4, 7, 7)
        assert not pattern.requires_grad
        torch.testing.assert_close(pattern.sum(dim=-1), torch.ones(2, 4, 7))
        if inputs:  # nobody looks at padding
            assert not pattern[0, :, 3:, :3].any()


def test_a_prompt_with_padding_has_the_pattern_that_it_has_alone(llama):
    pattern = read_attention(llama, random_ids(), attention_mask=LEFT)[2][0, :, 3:, 3:]
    alone = read_attention(llama, random_ids()[:1, 3:])[2][0]
    torch.testing.assert_close(pattern, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    model = build("llama", attn_implementation="sdpa").to(dtype)
    patterns = read_attention(model, random_ids())
    assert patterns[1].dtype == dtype
    for pattern, expected in zip(patterns.values(), eager_patterns(model, random_ids())):
        assert torch.equal(pattern, expected)


@pytest.mark.parametrize("layers", [2, [-1, 1], slice(2, None)])
def test_chosen_layers_and_nothing_behind_them(llama, layers, monkeypatch):
    every = read_attention(llama, random_ids())
    chosen = read_attention(llama, random_ids(), layers)
    assert list(chosen) == {"2": [2], "[-1, 1]": [3, 1]}.get(str(layers), [2, 3])
    assert all(torch.equal(pattern, every[layer]) for layer, pattern in chosen.items())

    def fail(*args, **kwargs):
        raise AssertionError("must not run")

    monkeypatch.setattr(llama.lm_head, "forward", fail)
    for layer in llama.model.layers[max(chosen) :]:
        monkeypatch.setattr(layer, "forward", fail)
    assert list(read_attention(llama, random_ids(), layers)) == list(chosen)


def settings(model) -> list:
    configs = [part.config for part in model.modules() if hasattr(part, "config")]
    configs += [getattr(model.config, name) for name in model.config.sub_configs]
    return [config._attn_implementation for config in configs]


@pytest.mark.parametrize("model_type", ["llama", "gemma3", "mllama"])
def test_settings_and_hooks_are_as_before_whatever_happens(model_type):
    """Also those of the parts of a composite configuration, and after an error."""
    model = architectures.build_if_known(model_type)
    inputs = architectures.inputs_of(model)
    if model.config.sub_configs:  # each part may have another setting than the whole
        part = next(iter(model.config.sub_configs))
        model.config._attn_implementation = {"": "sdpa", part: "eager"}
    before = settings(model)
    assert "sdpa" in before
    read_attention(model, **inputs)
    assert settings(model) == before and not count_hooks(model)

    def fail(*args):
        assert set(settings(model)) == {"eager"}
        raise KeyboardInterrupt

    handle = [m for m in model.modules() if hasattr(m, "o_proj")][1].register_forward_hook(fail)
    with pytest.raises(KeyboardInterrupt):
        read_attention(model, **inputs)
    handle.remove()
    assert settings(model) == before and not count_hooks(model)


def test_layers_without_a_pattern():
    """Two of MiniMax's layers have linear attention: left out, unless they are asked for."""
    model = architectures.build_if_known("minimax")
    inputs = architectures.inputs_of(model)
    assert list(read_attention(model, **inputs)) == [1, 3]
    message = "decoder layer 2 gave no attention pattern.*Its attention is not a softmax over keys"
    with pytest.raises(ValueError, match=message):
        read_attention(model, **inputs, layers=[1, 2])


def test_weights_that_are_not_finite_are_no_answer(llama):
    llama.model.layers[1].self_attn.q_proj.weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"decoder layer 2 gave no attention pattern.*nan"):
        read_attention(llama, random_ids(), 2)


@pytest.mark.parametrize("model_type", ["openai-gpt", "trocr"])
def test_attention_that_is_told_to_give_its_pattern(model_type):
    model = architectures.build_if_known(model_type)
    patterns = read_attention(model, **architectures.inputs_of(model))
    assert [p.shape for p in patterns.values()] == [(2, 4, 7, 7)] * 4
    assert not count_hooks(model)


def test_inside_other_blocks(llama):
    """A recorder sees the pass too; the second pass is not one of its own."""
    patterns = read_attention(llama, random_ids())
    with record_activations(llama) as activations:
        again = read_attention(llama, random_ids())
        logits = logits_of(llama)
    assert all(torch.equal(again[layer], patterns[layer]) for layer in patterns)
    assert torch.equal(activations[2], read_activations(llama, random_ids())[2])
    assert torch.equal(logits, logits_of(llama))


def test_compiled_model(llama):
    compiled = torch.compile(build("llama"), backend="eager")
    logits_of(compiled)
    patterns = read_attention(compiled, random_ids())
    for layer, expected in read_attention(llama, random_ids()).items():
        assert torch.equal(patterns[layer], expected)


def test_two_threads_with_one_model_are_refused(llama):
    errors = []

    def work():
        try:
            read_attention(llama, random_ids())
        except ValueError as error:
            errors.append(str(error))

    before = settings(llama)
    with record_activations(llama):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert "another thread" in errors[0] and settings(llama) == before


@pytest.mark.parametrize("option", ["layer", "positions"])
def test_unknown_options(model, option):
    with pytest.raises(TypeError, match=f"read_attention has no option '{option}'"):
        read_attention(model, random_ids(), **{option: 1})


def test_what_a_tokenizer_returns_is_passed_by_name(llama):
    with pytest.raises(ValueError, match="input_ids is a tensor"):
        read_attention(llama, {"input_ids": random_ids()})
    with pytest.raises(ValueError, match="layer 0 is the embedding output"):
        read_attention(llama, random_ids(), 0)
