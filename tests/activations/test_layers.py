"""Which layers are meant, and where they are in a model."""

from __future__ import annotations

import copy
import gc
import weakref

import numpy
import pytest
import torch
from transformers import AlbertConfig, AlbertForMaskedLM, BartConfig, BartForConditionalGeneration

import architectures
from streams import (
    HIDDEN,
    LAYERS,
    build,
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
from tutorial_utils.activations.layers import locate


@pytest.mark.parametrize(
    ("asked", "recorded"),
    [
        (None, [0, 1, 2, 3]),
        (2, [2]),
        (-1, [3]),
        ([0, -1], [0, 3]),
        ([3, 1, 3], [3, 1]),
        ((1, 2), [1, 2]),
        (range(1, 3), [1, 2]),
        (slice(None, None, 2), [0, 2]),
        (slice(-2, None), [2, 3]),
    ],
)
def test_layers_asked_for(llama, asked, recorded):
    activations, expected = record(llama, asked), hidden_states(llama)
    assert list(activations) == recorded
    assert all(torch.equal(activations[layer], expected[layer]) for layer in recorded)


@pytest.mark.parametrize("asked", [numpy.int64(2), numpy.arange(2, 4), torch.tensor([2, 3])])
def test_numbers_of_other_kinds(llama, asked):
    activations = read_activations(llama, random_ids(), layers=asked)
    assert torch.equal(activations[numpy.int64(2)], hidden_states(llama)[2])


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (4, "layer 4 is not in this model: it has layers 0 to 3"),
        ([0, -5], "layer -5 is not in this model: it has layers 0 to 3"),
        ([], "no layer was asked for"),
        (slice(9, None), "no layer was asked for"),
        ("all", "a layer is a whole number from 0 to 3, but 'a' was given"),
        ([1.0], "a layer is a whole number from 0 to 3, but 1.0 was given"),
        (True, "a layer is a whole number from 0 to 3, but True was given"),
    ],
)
def test_wrong_layer(llama, asked, message):
    with pytest.raises(ValueError, match=message), record_activations(llama, layers=asked):
        raise AssertionError("the block must not run")


def shorter_list(model):
    model.model.layers = model.model.layers[:2]
    model.config.num_hidden_layers = 2
    return 2


def fewer_in_the_list(model):
    del model.model.layers[-1]
    model.config.num_hidden_layers = 2
    return 2


def another_body(model):
    model.model = build("llama").model
    return LAYERS


def another_layer(model):
    model.model.layers[1] = build("llama").model.layers[1]
    return LAYERS


@pytest.mark.parametrize("change", [shorter_list, fewer_in_the_list, another_body, another_layer])
def test_layers_of_a_model_that_was_changed(llama, change):
    """What is remembered of a model is not used once it is no longer so."""
    assert list(read_activations(llama, random_ids())) == [0, 1, 2, 3]
    count = change(llama)
    assert find_decoder_layers(llama) is llama.model.layers
    with torch.no_grad(), record_activations(llama) as activations:
        out = llama(random_ids(), output_hidden_states=True)
    assert list(activations) == list(range(count + 1))
    for layer in range(count):
        assert torch.equal(activations[layer], out.hidden_states[layer])


def test_copy_of_a_model_has_layers_of_its_own(llama):
    read_activations(llama, random_ids())
    twin = copy.deepcopy(llama)
    with edit_activations(twin, {1: lambda hidden: hidden * 0}):
        assert not torch.equal(logits_of(twin), logits_of(llama))
    assert find_decoder_layers(twin) is twin.model.layers


def test_a_model_that_was_read_can_be_freed():
    model = build("llama")
    activations, gone = record(model), weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
    assert activations[1].shape == (2, 7, HIDDEN)


@pytest.mark.parametrize("model_type", ["gemma3", "gemma4", "mllama"])
def test_composite_configuration(model_type):
    """Nothing is read off the top, where such a configuration has no number of layers."""
    model = architectures.build(model_type)
    where = locate(model)
    assert len(where.layers) == architectures.LAYERS and where.width == 32
    assert not hasattr(model.config, "num_hidden_layers") or model_type == "mllama"


def test_model_without_decoder_layers():
    with pytest.raises(ValueError, match="has no transformers configuration"):
        find_decoder_layers(torch.nn.Linear(2, 2))


def test_encoder_decoder_is_refused_unless_a_part_is_named():
    bart = BartForConditionalGeneration(architectures.small_config(BartConfig)).eval()
    message = r"model.encoder.layers \(4\), model.decoder.layers \(4\).*pass the part that owns it"
    with pytest.raises(ValueError, match=message):
        find_decoder_layers(bart)
    assert find_decoder_layers(bart.model.decoder) is bart.model.decoder.layers
    ids = random_ids()
    with torch.no_grad(), record_activations(bart.model.decoder) as activations:
        out = bart(ids, decoder_input_ids=ids[:, :4], output_hidden_states=True, use_cache=False)
    for layer, expected in enumerate(out.decoder_hidden_states):
        assert torch.equal(activations[layer], expected)


def test_shared_layers_are_refused():
    albert = AlbertForMaskedLM(architectures.small_config(AlbertConfig)).eval()
    with pytest.raises(
        ValueError, match=r"does not tell which list holds its decoder layers.*\(1\)"
    ):
        find_decoder_layers(albert)
    # Named by hand, the one layer runs three times, which no layer number can tell.
    message = "ran twice in one forward pass"
    with pytest.raises(ValueError, match=message), record_activations(albert.albert.encoder):
        albert(random_ids())


def test_a_layer_that_runs_twice_is_refused(llama):
    llama.model.layers[2] = llama.model.layers[1]
    with pytest.raises(ValueError, match="ran twice"), record_activations(llama):
        llama(random_ids(), use_cache=False)
