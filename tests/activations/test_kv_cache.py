"""Forward passes that belong together: one continues the KV cache that another left."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch

from streams import HIDDEN, assert_same, build, hidden_states, random_ids, run_by_hand
from tutorial_utils import read_activations, record_activations


@pytest.mark.parametrize("batch", [1, 3])
def test_cached_decoding(model, batch):
    """Passes that go on with a cache are appended, each bit for bit what the model made."""

    def decode(run):
        ids, cache, passes = random_ids(batch), None, []
        for step in range(3):
            new = ids if step == 0 else ids[:, step : step + 1]
            out, states = run(new, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            passes.append(states)
        return passes

    with torch.no_grad():
        expected = decode(partial(run_by_hand, model))
        with record_activations(model) as activations:
            decode(lambda ids, **inputs: (model(ids, **inputs), None))
    assert_same(activations, [torch.cat(steps, dim=1) for steps in zip(*expected)])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_cache": False},  # each pass covers all tokens anyway
        {"do_sample": True, "num_return_sequences": 2},
        {"cache_implementation": "static"},
    ],
    ids=str,
)
def test_generate_gives_all_tokens(model, options):
    options = {"do_sample": False, "eos_token_id": None, **options}
    with record_activations(model) as activations:
        out = model.generate(random_ids(), max_new_tokens=5, **options)
    # The last new token was chosen but never read.
    expected = hidden_states(model, out[:, :-1])
    assert activations[0].shape == (len(out), 11, HIDDEN)
    for layer, tensor in enumerate(expected):
        torch.testing.assert_close(activations[layer], tensor)


def test_assisted_decoding_takes_tokens_back_out_of_the_cache(llama):
    options = {"prompt_lookup_num_tokens": 3, "eos_token_id": -1, "do_sample": False}
    with record_activations(llama) as activations:
        out = llama.generate(random_ids(1, 4).repeat(1, 3), max_new_tokens=8, **options)
    expected = hidden_states(llama, out[:, :-1])
    for layer in activations:  # it may have tried tokens after the last one kept
        found = activations[layer][:, : out.shape[1] - 1]
        torch.testing.assert_close(found, expected[layer])


def test_second_pass_replaces_the_first(model):
    """A cell that runs the model twice does not pile up."""
    first, second = random_ids(2, 7), random_ids(3, 5)
    with record_activations(model) as activations, torch.no_grad():
        model(first)
        model(second)
        assert activations[1].shape == (3, 5, HIDDEN)
        model.generate(first, max_new_tokens=4, do_sample=False, eos_token_id=None)
        model.generate(first, max_new_tokens=4, do_sample=False, eos_token_id=None)
    assert activations[1].shape == (2, 10, HIDDEN)


def test_cache_filled_outside_the_block(llama):
    ids = random_ids(1)
    with torch.no_grad():
        cache = llama(ids[:, :4], use_cache=True).past_key_values
        with record_activations(llama) as activations:
            llama(ids[:, 4:6], past_key_values=cache)
            llama(ids[:, 6:], past_key_values=cache)
    expected = hidden_states(llama, ids)
    assert activations[2].shape == (1, 3, HIDDEN)
    torch.testing.assert_close(activations[2], expected[2][:, 4:])


def test_cropped_cache(llama):
    """Tokens that were taken out of the cache are taken out of the record (assisted decoding)."""
    ids = random_ids(1)
    with torch.no_grad(), record_activations(llama) as activations:
        cache = llama(ids, use_cache=True).past_key_values
        cache.crop(-3)
        llama(ids[:, 4:5], past_key_values=cache)
    assert activations[2].shape == (1, 5, HIDDEN)
    torch.testing.assert_close(activations[2], hidden_states(llama, ids)[2][:, :5])


def test_another_cache_starts_anew(llama):
    ids = random_ids(1)
    with torch.no_grad():
        other = llama(ids[:, :4], use_cache=True).past_key_values
        with record_activations(llama) as activations:
            llama(ids, use_cache=True)
            llama(ids[:, 4:5], past_key_values=other)
    assert activations[2].shape == (1, 1, HIDDEN)


def test_copied_cache_starts_anew(llama):
    """A copy of a cache is another cache: what follows it replaces what was recorded."""
    with torch.no_grad(), record_activations(llama) as activations:
        cache = llama(random_ids(), use_cache=True).past_key_values
        llama(random_ids()[:, :2], past_key_values=copy.deepcopy(cache))
    assert activations[1].shape == (2, 2, HIDDEN)


def test_emptied_cache_starts_anew(llama):
    with torch.no_grad(), record_activations(llama, positions=[0]) as activations:
        cache = llama(random_ids(), use_cache=True).past_key_values
        cache.crop(-7)
        llama(random_ids().flip(1), past_key_values=cache)
    expected = hidden_states(llama, random_ids().flip(1))
    assert torch.equal(activations[2], expected[2][:, :1])


def test_beam_search_is_refused(llama):
    """Its rows change places between two steps, so that no row of a record is one sequence."""
    message = "Generate first, then record one pass"
    with pytest.raises(ValueError, match=message), record_activations(llama):
        llama.generate(random_ids(), max_new_tokens=6, num_beams=3, eos_token_id=None)


def test_guidance_is_refused(llama):
    """Its second pass for each token, without the prompt, comes between those that are recorded."""
    message = "generate with guidance_scale.*Generate first"
    with pytest.raises(ValueError, match=message), record_activations(llama):
        llama.generate(random_ids(), max_new_tokens=4, guidance_scale=2.0, do_sample=False)


def test_outputs_as_tuples():
    """`return_dict: false` in a model's configuration: the cache is found in a tuple too."""
    gptj, ids = build("gptj", return_dict=False), random_ids(1)
    with torch.no_grad(), record_activations(gptj) as activations:
        cache = gptj(ids[:, :4], use_cache=True)[1]
        gptj(ids[:, 4:], past_key_values=cache)
    torch.testing.assert_close(activations[2], read_activations(gptj, ids)[2])
    # Llama itself does not run so; its layers do, and reading needs no more.
    expected = read_activations(build("llama"), ids)
    assert_same(read_activations(build("llama", return_dict=False), ids), list(expected.values()))
