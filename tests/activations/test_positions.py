"""Which positions are kept of each forward pass."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache

import architectures
from streams import HIDDEN, VOCAB, assert_same, hidden_states, random_ids, record
from tutorial_utils import read_activations, record_activations
from tutorial_utils.activations.positions import real_tokens

PADDED = {
    "left": ([[0, 0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1, 1], [1] * 7], [6, 6, 6]),
    "right": ([[1, 1, 1, 1, 0, 0, 0], [1] + [0] * 6, [1] * 7], [3, 0, 6]),
    "none": (None, [6, 6, 6]),
    "both": ([[0, 1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0], [0] * 6 + [1]], [3, 1, 6]),
}


@pytest.mark.parametrize("side", PADDED)
def test_last_real_token(model, side):
    mask, last = PADDED[side]
    mask = None if mask is None else torch.tensor(mask)
    inputs = {"input_ids": random_ids(3), "attention_mask": mask}
    everything = record(model, inputs=inputs)
    activations = record(model, inputs=inputs, positions="last")
    for layer in everything:
        expected = everything[layer][torch.arange(3), last][:, None]
        assert torch.equal(activations[layer], expected)


def test_last_token_where_the_mask_is_no_keyword(llama):
    mask = torch.tensor([[1, 1, 1, 0, 0, 0, 0], [1] * 7])
    with torch.no_grad(), record_activations(llama, 2, positions="last") as activations:
        llama.model(random_ids(), mask)
        assert activations[2].shape == (2, 1, HIDDEN)
        expected = hidden_states(llama, random_ids(), attention_mask=mask)[2]
        llama.model(random_ids(), mask)
    assert torch.equal(activations[2][0, 0], expected[0, 2])


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
    with pytest.raises(ValueError, match=message):
        read_activations(llama, random_ids(), positions=positions)


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
    mask = torch.tensor([[1] * 7, [0] * 7])
    with pytest.raises(ValueError, match="row 1 of this input is all padding: leave that row out"):
        read_activations(llama, random_ids(), positions="last", attention_mask=mask)


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
def test_mask_with_a_row_for_each_query(llama, dtype):
    """(batch, 1, query, key), as transformers makes it: padding may not look at itself."""
    mask = torch.ones(2, 1, 7, 7, dtype=torch.bool).tril()
    mask[0, ..., 5:] = False
    expected = read_activations(llama, random_ids(), layers=2)[2][[0, 1], [4, 6]]
    if dtype is torch.float32:
        mask = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(dtype).min)
    last = read_activations(llama, random_ids(), positions="last", attention_mask=mask)
    torch.testing.assert_close(last[2][:, 0], expected)


@pytest.mark.parametrize("mask", [torch.ones(2, 7, 7), torch.ones(2, 1, 5, 7), "causal"])
def test_mask_of_another_shape(mask):
    message = r"needs an attention mask of shape \(batch, seq\), not .*: record all positions"
    with pytest.raises(ValueError, match=message):
        real_tokens(mask, seq=7, past=0)


LEFT = torch.tensor([[0, 0, 0, 0, 1, 1, 1], [1] * 7])
STATIC = {"cache_implementation": "static"}


@pytest.mark.parametrize(
    ("model_type", "settings", "mask", "options"),
    [
        ("llama", {}, LEFT, {}),
        ("llama", {}, LEFT, STATIC),
        ("llama", {}, LEFT, {"prefill_chunk_size": 5}),
        ("llama", {}, LEFT, {"use_cache": False}),
        ("mistral", {"sliding_window": 4}, LEFT, {}),
        ("mistral", {"sliding_window": 4}, LEFT, STATIC),
        ("bloom", {}, LEFT, STATIC),  # its mask covers the tokens to come
        ("gemma3", {}, None, {}),  # composite: it is given a mask for each kind of layer
        ("gemma3", {}, LEFT, STATIC),
        ("gemma4", {}, None, {}),
        ("big_bird", {}, None, {}),
        ("git", {}, None, {}),
        ("roformer", {}, LEFT, STATIC),
    ],
)
def test_last_token_in_generate(model_type, settings, mask, options):
    """Whatever mask transformers hands down: the position that predicts each new token."""
    model = architectures.build(model_type)
    for name, value in settings.items():
        setattr(model.config, name, value)
    inputs = {**architectures.inputs_of(model), "attention_mask": mask}
    options = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0, **options}
    recorded = []
    for positions in (None, "last"):
        with record_activations(model, positions=positions) as activations:
            model.generate(**inputs, max_new_tokens=4, **options)
        recorded.append(activations)
    every, last = recorded
    chunks = 1 if "prefill_chunk_size" in options else 0
    new = 1 if options.get("use_cache") is False else 4
    assert last[2].shape[1] == new + chunks
    assert torch.equal(last[2][:, chunks:], every[2][:, -new:])


def test_chunks_of_a_prompt_that_are_padding_alone(llama):
    """They count for nothing: the row's first real token comes with a later chunk."""
    options = {"attention_mask": LEFT, "do_sample": False, "eos_token_id": None}
    with record_activations(llama) as every:
        llama.generate(random_ids(), max_new_tokens=3, **options)
    with record_activations(llama, positions="last") as last:
        llama.generate(random_ids(), max_new_tokens=3, prefill_chunk_size=3, **options)
    assert last[2].shape[1] == 4  # columns 5, 6, and one for each new token that was read
    torch.testing.assert_close(last[2][:, 1:], every[2][:, -3:])
    with torch.no_grad(), record_activations(llama, positions="last") as last:
        llama(
            random_ids(),
            attention_mask=torch.tensor([[0] * 7, [1] * 7]),
            past_key_values=DynamicCache(),
        )
    with pytest.raises(ValueError, match="row 0 of this input is all padding"):
        last[2]


def test_assisted_decoding_has_no_last_token(llama):
    """It tries several tokens in one pass, of which some are dropped."""
    recording = record_activations(llama, positions="last")
    with pytest.raises(ValueError, match=r"assisted decoding.*record all positions"), recording:
        llama.generate(random_ids(1, 4).repeat(1, 3), max_new_tokens=8, prompt_lookup_num_tokens=3)


@pytest.mark.parametrize("model_type", ["rwkv", "xlstm", "recurrent_gemma"])
def test_left_padded_batch_of_a_model_that_reads_padding(model_type):
    model = architectures.build(model_type)
    ids, mask = random_ids(), LEFT
    with pytest.raises(ValueError, match="run one prompt at a time"):
        read_activations(model, ids, positions="last", attention_mask=mask)
    last = read_activations(model, ids, positions="last", attention_mask=mask.flip(1))
    alone = read_activations(model, ids[:1, :3])
    torch.testing.assert_close(last[-1][0, 0], alone[-1][0, -1], rtol=1e-4, atol=1e-4)
