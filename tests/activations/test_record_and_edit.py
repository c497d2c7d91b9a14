"""Recording, reading and editing: each layer is what the model computed."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache

from streams import (
    HIDDEN,
    LAYERS,
    assert_same,
    hidden_states,
    logits_of,
    random_ids,
    record,
)
from tutorial_utils import (
    edit_activations,
    find_decoder_layers,
    read_activations,
    record_activations,
)

LEFT_PADDED = torch.tensor([[0, 0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1, 1], [1] * 7])


@pytest.mark.parametrize(
    ("batch", "inputs"), [(1, {}), (3, {}), (3, {"attention_mask": LEFT_PADDED})]
)
def test_equal_to_hidden_states(model, batch, inputs):
    ids = random_ids(batch)
    activations = record(model, inputs={"input_ids": ids, **inputs})
    assert_same(activations, hidden_states(model, ids, **inputs))
    assert activations[0].shape == (batch, 7, HIDDEN)


def test_read_activations(model):
    ids = random_ids(3)
    expected = hidden_states(model, ids, attention_mask=LEFT_PADDED)
    assert_same(read_activations(model, ids, attention_mask=LEFT_PADDED), expected)
    last = read_activations(model, ids, layers=-1, positions="last", attention_mask=LEFT_PADDED)
    assert list(last) == [LAYERS]
    assert torch.equal(last[-1], expected[-1][:, -1:])
    assert not last[-1].requires_grad


def test_read_activations_of_what_a_tokenizer_returns(llama):
    inputs = {"input_ids": random_ids(), "attention_mask": torch.ones_like(random_ids())}
    assert read_activations(llama, **inputs)[1].shape == (2, 7, HIDDEN)
    message = r"input_ids is a tensor of shape \(batch, seq\), not dict"
    with pytest.raises(ValueError, match=message):
        read_activations(llama, inputs)


def test_read_activations_runs_no_head_and_fills_no_cache(llama, monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("must not run")

    monkeypatch.setattr(llama.lm_head, "forward", fail)
    monkeypatch.setattr(llama.model.norm, "forward", fail)
    monkeypatch.setattr(DynamicCache, "update", fail)
    assert read_activations(llama, random_ids())[-1].shape == (2, 7, HIDDEN)


def test_edit_in_place(llama):
    """Changing the tensor itself and giving it back works too."""
    with edit_activations(llama, {1: lambda hidden: hidden * 2}):
        expected = logits_of(llama)
    with edit_activations(llama, {1: lambda hidden: hidden.mul_(2)}):
        assert torch.equal(logits_of(llama), expected)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda h: h[0], r"the edit of layer 2 returned \(7, 32\), torch.float32, cpu instead of"),
        (lambda h: h[:, :1], r"returned \(2, 1, 32\), .* instead of \(2, 7, 32\)"),
        (lambda h: h.half(), r"torch.float16, cpu instead of \(2, 7, 32\), torch.float32"),
        (lambda h: h.to("meta"), "meta instead of .*, cpu"),
        (lambda h: None, "the edit of layer 2 returned None instead of"),
        (lambda h: (h,), r"the edit of layer 2 returned \(tensor"),
    ],
)
def test_edit_of_another_kind(model, edit, message):
    with pytest.raises(ValueError, match=message), edit_activations(model, {2: edit}):
        logits_of(model)


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_error_in_the_edit(llama, error):
    def fail(hidden):
        raise error

    with pytest.raises(error), edit_activations(llama, {1: fail}):
        llama(random_ids())


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ({9: abs}, "layer 9 is not in this model: it has layers 0 to 3"),
        ({3: abs, -1: abs}, "two of these layers are the same one"),
        ({1: 2.0}, "edits are given as"),
        ([1], "edits are given as"),
        ({}, "no layer was asked for"),
    ],
)
def test_wrong_edits(llama, edits, message):
    with pytest.raises(ValueError, match=message), edit_activations(llama, edits):
        raise AssertionError("the block must not run")


def test_two_recorders(llama):
    ids = random_ids()
    with torch.no_grad(), record_activations(llama) as first:
        second = record(llama, [1, 2], positions="last")
        llama(ids[:1])
    assert torch.equal(second[2], hidden_states(llama)[2][:, -1:])
    assert_same(first, hidden_states(llama, ids[:1]))


def test_recorder_and_editor(model):
    """At one layer they act in the order in which their blocks were entered."""
    expected = hidden_states(model)
    for layer in (0, 2):
        edit = edit_activations(model, {layer: lambda hidden: hidden + 1})
        with record_activations(model) as before, edit:
            after = record(model)
        assert torch.equal(before[layer], expected[layer])
        assert torch.equal(after[layer], expected[layer] + 1)
        assert torch.equal(before[3], after[3])
        assert not torch.equal(before[3], expected[3])


def test_peft_model(llama):
    peft = pytest.importorskip("peft")
    ids, base = random_ids(), hidden_states(llama)
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    wrapped = peft.get_peft_model(llama, config).eval()
    assert find_decoder_layers(wrapped) is llama.model.layers
    activations = record(wrapped)
    assert_same(activations, hidden_states(llama, ids))
    assert not torch.equal(activations[1], base[1])
    assert_same(read_activations(wrapped, ids), hidden_states(llama, ids))
    last = read_activations(wrapped, ids, positions="last", attention_mask=torch.ones_like(ids))
    assert torch.equal(last[1], activations[1][:, -1:])


def test_peft_virtual_tokens(llama):
    """Prompt tuning puts tokens of its own in front, which are then part of the stream."""
    peft = pytest.importorskip("peft")
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    wrapped = peft.get_peft_model(llama, config).eval()
    assert record(wrapped)[1].shape == (2, 10, HIDDEN)
