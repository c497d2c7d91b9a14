"""Reading what was recorded, and what is said where it cannot be read."""

from __future__ import annotations

import pytest
import torch

import architectures
from streams import HIDDEN, LAYERS, hidden_states, random_ids, record, stream
from tutorial_utils import read_activations, record_activations


def test_negative_number_reads_too(llama):
    activations = record(llama, [0, -1])
    assert activations[-1] is activations[LAYERS]
    assert activations[-4] is activations[0]


def test_reading_a_layer_that_was_not_recorded(llama):
    activations = record(llama, [1, 2])
    with pytest.raises(KeyError, match=r"layer 0 was not recorded; recorded layers: \[1, 2\]"):
        activations[0]
    with pytest.raises(KeyError, match="layer all was not recorded"):
        activations["all"]
    assert 1 in activations and 0 not in activations


def test_reading_before_the_model_ran(llama):
    message = "run the model inside the `with` block"
    with record_activations(llama) as activations:
        with pytest.raises(KeyError, match=message):
            activations[1]
        with pytest.raises(KeyError, match=message):
            list(activations.values())
    llama(random_ids())  # outside the block: not recorded
    with pytest.raises(KeyError, match=message):
        activations[1]


def test_layer_that_the_model_left_out():
    """Mllama runs its cross-attention layers only where there is an image."""
    activations = read_activations(architectures.build("mllama"), random_ids())
    assert activations[1].shape == activations[3].shape == (2, 7, HIDDEN)
    with pytest.raises(KeyError, match="the model left this decoder layer out"):
        activations[2]


def test_change_in_place_after_recording(llama):
    """A later hook that edits in place would change the record: reading says so."""

    def in_place(module, args, output):
        stream(output).add_(1)

    expected = hidden_states(llama)
    for options in ({}, {"to": "cpu"}):
        with torch.no_grad(), record_activations(llama, **options) as activations:
            hook = llama.model.layers[0].register_forward_hook(in_place)
            llama(random_ids())
            hook.remove()
        assert torch.equal(activations[0], expected[0])
        if options:
            assert torch.equal(activations[1], expected[1])
        else:
            with pytest.raises(ValueError, match="layer 1 was changed in place"):
                activations[1]
    activations = record(llama)
    activations[1].add_(1)  # the reader's own change is the reader's business
    assert torch.equal(activations[1], expected[1] + 1)
