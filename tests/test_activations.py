"""Promises of tutorial_utils.activations, each a test. Models are tiny and random."""

from __future__ import annotations

import gc

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTJConfig,
    GPTJForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from tutorial_utils.activations import find_decoder_layers, record_activations

LAYERS, HIDDEN, VOCAB = 3, 32, 99


def build(kind: str) -> torch.nn.Module:
    """A tiny random model. Llama's and GPT-2's layers return a tensor, GPT-J's a tuple."""
    torch.manual_seed(0)
    tokens = {"vocab_size": VOCAB, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    gpt = {"n_layer": LAYERS, "n_embd": HIDDEN, "n_head": 4, **tokens}
    if kind == "llama":
        config = LlamaConfig(
            num_hidden_layers=LAYERS,
            hidden_size=HIDDEN,
            intermediate_size=48,
            num_attention_heads=4,
            num_key_value_heads=2,
            **tokens,
        )
        return LlamaForCausalLM(config).eval()
    if kind == "gpt2":
        return GPT2LMHeadModel(GPT2Config(**gpt)).eval()
    return GPTJForCausalLM(GPTJConfig(rotary_dim=4, **gpt)).eval()


@pytest.fixture(params=["llama", "gpt2", "gptj"])
def model(request):
    return build(request.param)


@pytest.fixture
def llama():
    return build("llama")


def random_ids(batch: int = 2, seq: int = 7) -> torch.Tensor:
    return torch.randint(3, VOCAB, (batch, seq), generator=torch.Generator().manual_seed(1))


def hidden_states(model, ids, **inputs) -> list[torch.Tensor]:
    """Layers 0 to n by another way: transformers' own, and what goes into the final norm."""
    norm = model.model.norm if hasattr(model, "model") else model.transformer.ln_f
    last = []
    hook = norm.register_forward_pre_hook(lambda module, args: last.append(args[0]))
    with torch.no_grad():
        out = model(ids, output_hidden_states=True, **inputs)
    hook.remove()
    return [*out.hidden_states[:-1], last[0]]


def assert_same(activations, expected) -> None:
    assert list(activations) == list(range(LAYERS + 1))
    for layer, tensor in enumerate(expected):
        assert torch.equal(activations[layer], tensor), layer


def count_hooks(model) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(m, kind)) for m in model.modules() for kind in kinds)


# -- what is recorded ------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 3])
def test_equal_to_hidden_states(model, batch):
    ids = random_ids(batch)
    with record_activations(model) as activations, torch.no_grad():
        model(ids)
    assert_same(activations, hidden_states(model, ids))
    assert activations[0].shape == (batch, 7, HIDDEN)


def test_left_padded_batch(model):
    ids = random_ids(3)
    mask = torch.tensor([[0, 0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1, 1], [1] * 7])
    with record_activations(model) as activations, torch.no_grad():
        model(ids, attention_mask=mask)
    assert_same(activations, hidden_states(model, ids, attention_mask=mask))


@pytest.mark.parametrize("batch", [1, 3])
def test_cached_decoding(model, batch):
    """Passes that go on with a cache are appended, each bit for bit what the model made."""

    def decode(run):
        ids, cache, passes = random_ids(batch), None, []
        for step in range(3):
            new = ids if step == 0 else ids[:, step : step + 1]
            out, states = run(new, past_key_values=cache)
            cache = out.past_key_values
            passes.append(states)
        return passes

    def by_hand(ids, **inputs):
        norm = model.model.norm if hasattr(model, "model") else model.transformer.ln_f
        last = []
        hook = norm.register_forward_pre_hook(lambda module, args: last.append(args[0]))
        out = model(ids, output_hidden_states=True, use_cache=True, **inputs)
        hook.remove()
        return out, [*out.hidden_states[:-1], last[0]]

    with torch.no_grad():
        expected = decode(by_hand)
        with record_activations(model) as activations:
            decode(lambda ids, **inputs: (model(ids, use_cache=True, **inputs), None))
    assert_same(activations, [torch.cat(steps, dim=1) for steps in zip(*expected)])


@pytest.mark.parametrize("use_cache", [True, False])
def test_generate_gives_all_tokens(model, use_cache):
    """With a cache each step is appended; without one each pass covers all tokens anyway."""
    ids = random_ids(2)
    with record_activations(model) as activations:
        out = model.generate(
            ids, max_new_tokens=5, do_sample=False, eos_token_id=None, use_cache=use_cache
        )
    # The last new token was chosen but never read.
    expected = hidden_states(model, out[:, :-1])
    assert activations[0].shape == (2, 11, HIDDEN)
    for layer, tensor in enumerate(expected):
        torch.testing.assert_close(activations[layer], tensor)


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


# -- which layers ----------------------------------------------------------------------------


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
    ids = random_ids()
    with record_activations(llama, layers=asked) as activations, torch.no_grad():
        llama(ids)
    assert list(activations) == recorded
    expected = hidden_states(llama, ids)
    assert all(torch.equal(activations[layer], expected[layer]) for layer in recorded)


def test_negative_number_reads_too(llama):
    with record_activations(llama, layers=[0, -1]) as activations, torch.no_grad():
        llama(random_ids())
    assert activations[-1] is activations[LAYERS]
    assert activations[-4] is activations[0]


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
    before = count_hooks(llama)
    with pytest.raises(ValueError, match=message), record_activations(llama, layers=asked):
        raise AssertionError("the block must not run")
    assert count_hooks(llama) == before


def test_reading_a_layer_that_was_not_recorded(llama):
    with record_activations(llama, layers=[1, 2]) as activations, torch.no_grad():
        llama(random_ids())
    with pytest.raises(KeyError, match=r"layer 0 was not recorded; recorded layers: \[1, 2\]"):
        activations[0]
    with pytest.raises(KeyError, match="layer all was not recorded"):
        activations["all"]
    assert 1 in activations and 0 not in activations


def test_reading_before_the_model_ran(llama):
    with record_activations(llama) as activations:
        with pytest.raises(KeyError, match="run the model inside the `with` block"):
            activations[1]
        with pytest.raises(KeyError, match="run the model inside the `with` block"):
            list(activations.values())
    llama(random_ids())  # outside the block: not recorded
    with pytest.raises(KeyError, match="run the model inside the `with` block"):
        activations[1]


# -- finding the layers ----------------------------------------------------------------------


def test_find_decoder_layers(model):
    layers = find_decoder_layers(model)
    assert layers is (model.model.layers if hasattr(model, "model") else model.transformer.h)


def test_model_without_decoder_layers():
    with pytest.raises(ValueError, match="has no transformers configuration"):
        find_decoder_layers(torch.nn.Linear(2, 2))


# -- hooks -----------------------------------------------------------------------------------


def test_hooks_gone_after_the_block(model):
    before = count_hooks(model)
    with record_activations(model):
        model(random_ids())
        assert count_hooks(model) > before
    assert count_hooks(model) == before


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, GeneratorExit])
@pytest.mark.parametrize("layer", range(LAYERS))
def test_hooks_gone_after_an_error(llama, error, layer):
    def fail(module, args):
        raise error

    other = llama.model.layers[layer].self_attn.register_forward_pre_hook(fail)
    before = count_hooks(llama)
    with pytest.raises(error), record_activations(llama):
        llama(random_ids())
    assert count_hooks(llama) == before
    other.remove()
    with record_activations(llama) as activations, torch.no_grad():
        llama(random_ids())
    assert_same(activations, hidden_states(llama, random_ids()))


def test_error_inside_the_block_leaves_no_half_record(llama):
    """A pass that broke off does not count as one that the next could continue."""
    ids = random_ids()
    with record_activations(llama) as activations, torch.no_grad():
        with pytest.raises(IndexError):
            llama(torch.full_like(ids, VOCAB + 1))
        llama(ids)
    assert_same(activations, hidden_states(llama, ids))


def test_hooks_gone_after_an_abandoned_generator(llama):
    def steps():
        with record_activations(llama) as activations:
            while True:
                llama(random_ids())
                yield activations[1]

    before = count_hooks(llama)
    generator = steps()
    next(generator)
    assert count_hooks(llama) > before
    del generator
    gc.collect()
    assert count_hooks(llama) == before


def test_other_hooks_stay_in_their_order(llama):
    calls = []
    layer = llama.model.layers[1]
    first = layer.register_forward_hook(lambda *_: calls.append("first"))
    with record_activations(llama):
        second = layer.register_forward_hook(lambda *_: calls.append("second"))
        llama(random_ids())
    llama(random_ids())
    assert calls == ["first", "second"] * 2
    assert list(layer._forward_hooks) == [first.id, second.id]
