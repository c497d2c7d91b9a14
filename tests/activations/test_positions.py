"""Which positions are kept of each forward pass."""

from __future__ import annotations

import pytest
import torch

from streams import HIDDEN, VOCAB, assert_same, hidden_states, random_ids, record
from tiny_models import count_hooks
from tutorial_utils.activations.record_and_edit import read_activations, record_activations

PADDED = {
    "left": ([[0, 0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1, 1], [1] * 7], [6, 6, 6]),
    "right": ([[1, 1, 1, 1, 0, 0, 0], [1] + [0] * 6, [1] * 7], [3, 0, 6]),
    "both": ([[0, 1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0], [0] * 6 + [1]], [3, 1, 6]),
}


@pytest.mark.parametrize("side", PADDED)
def test_last_real_token(model, side):
    mask, last = PADDED[side]
    inputs = {"input_ids": random_ids(3), "attention_mask": torch.tensor(mask)}
    with torch.no_grad(), record_activations(model) as everything:
        model(**inputs)
    with torch.no_grad(), record_activations(model, positions="last") as activations:
        model(**inputs)
    for layer in everything:
        expected = everything[layer][torch.arange(3), last][:, None]
        assert torch.equal(activations[layer], expected)


def test_last_token_without_a_mask(llama):
    activations = record(llama, 2, positions="last")
    assert torch.equal(activations[2], hidden_states(llama)[2][:, -1:])


def test_last_token_where_the_mask_is_no_keyword(llama):
    mask = torch.tensor([[1, 1, 1, 0, 0, 0, 0], [1] * 7])
    with torch.no_grad(), record_activations(llama, 2, positions="last") as activations:
        llama.model(random_ids(), mask)
        assert activations[2].shape == (2, 1, HIDDEN)
        expected = hidden_states(llama, random_ids(), attention_mask=mask)[2]
        llama.model(random_ids(), mask)
    assert torch.equal(activations[2][0, 0], expected[0, 2])


def test_last_token_while_generating(llama):
    """One position for each pass: the one that predicts the next new token."""
    mask = torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1] * 7])
    options = {"attention_mask": mask, "do_sample": False, "eos_token_id": None}
    with record_activations(llama, positions="last") as activations:
        out = llama.generate(random_ids(), max_new_tokens=4, **options)
    mask = torch.cat([mask, torch.ones(2, 3, dtype=torch.long)], dim=1)
    expected = hidden_states(llama, out[:, :-1], attention_mask=mask)
    torch.testing.assert_close(activations[2], expected[2][:, -4:])


@pytest.mark.parametrize(
    ("positions", "columns"),
    [([0, 3], [0, 3]), ([-1, 0, -1], [6, 0, 6]), (2, [2]), (range(2), [0, 1])],
)
def test_listed_positions(llama, positions, columns):
    activations = record(llama, positions=positions)
    assert_same(activations, [h[:, columns] for h in hidden_states(llama)])


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        (7, "position 7 is not in this input: it has positions 0 to 6"),
        ([0, -8], "position -8 is not in this input: it has positions 0 to 6"),
        ([], "positions are None for all"),
        ("first", "positions are None for all"),
        ([1.5], "positions are None for all"),
        (1.5, "positions are None for all"),
        (True, "positions are None for all"),
    ],
)
def test_wrong_position(llama, positions, message):
    before = count_hooks(llama)
    with pytest.raises(ValueError, match=message):
        read_activations(llama, random_ids(), positions=positions)
    assert count_hooks(llama) == before


def test_listed_positions_do_not_go_with_a_cache(llama):
    recording = record_activations(llama, positions=[0])
    with pytest.raises(ValueError, match="this pass continues another"), recording:
        llama.generate(random_ids(), max_new_tokens=3, do_sample=False, eos_token_id=None)


def test_mask_of_a_pass_that_broke_off_is_forgotten(llama):
    mask = torch.tensor([[1, 1, 1, 0, 0, 0, 0], [1] * 7])
    with torch.no_grad(), record_activations(llama, 2, positions="last") as activations:
        with pytest.raises(IndexError):
            llama(random_ids() + VOCAB, attention_mask=mask)
        llama(random_ids())
    assert torch.equal(activations[2], hidden_states(llama)[2][:, -1:])


def test_row_without_a_real_token(llama):
    mask = torch.tensor([[0] * 7, [1] * 7])
    with pytest.raises(ValueError, match="a row of this input has no real token"):
        read_activations(llama, random_ids(), positions="last", attention_mask=mask)


def test_mask_of_another_shape(llama):
    mask = torch.ones(2, 1, 7, 7, dtype=torch.bool).tril()
    with pytest.raises(ValueError, match=r"needs an attention mask of shape \(batch, seq\)"):
        read_activations(llama, random_ids(), positions="last", attention_mask=mask)
