"""Promises of tutorial_utils.activations, each a test. Models are tiny and random."""

from __future__ import annotations

import copy
import gc
import shutil
import sys
import threading
import weakref

import numpy
import pytest
import torch
from transformers import (
    AlbertConfig,
    AlbertForMaskedLM,
    BartConfig,
    BartForConditionalGeneration,
    DynamicCache,
    GPT2Config,
    GPT2LMHeadModel,
    GPTJConfig,
    GPTJForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MllamaForCausalLM,
)
from transformers.models.mllama.configuration_mllama import MllamaTextConfig

from tiny_models import count_hooks
from tutorial_utils.activations.layers import find_decoder_layers
from tutorial_utils.activations.record_and_edit import (
    edit_activations,
    read_activations,
    record_activations,
)

LAYERS, HIDDEN, VOCAB = 3, 32, 99


def build(kind: str) -> torch.nn.Module:
    """A tiny random model. GPT-J's layers return a tuple, in old versions the others' too."""
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


def stream(output) -> torch.Tensor:
    """The residual stream in what a decoder layer returns, by kind and by version of its own."""
    return output[0] if isinstance(output, tuple) else output


def with_stream(output, hidden: torch.Tensor):
    """What a decoder layer returned, with another residual stream in it."""
    return (hidden, *output[1:]) if isinstance(output, tuple) else hidden


def assert_same(activations, expected) -> None:
    assert list(activations) == list(range(LAYERS + 1))
    for layer, tensor in enumerate(expected):
        assert torch.equal(activations[layer], tensor), layer


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


@pytest.mark.parametrize("asked", [numpy.int64(2), numpy.arange(2, 4), torch.tensor([2, 3])])
def test_numbers_of_other_kinds(llama, asked):
    activations = read_activations(llama, random_ids(), layers=asked)
    assert torch.equal(activations[numpy.int64(2)], hidden_states(llama, random_ids())[2])


def test_read_activations_of_what_a_tokenizer_returns(llama):
    inputs = {"input_ids": random_ids(), "attention_mask": torch.ones_like(random_ids())}
    assert read_activations(llama, **inputs)[1].shape == (2, 7, HIDDEN)
    with pytest.raises(
        ValueError, match=r"input_ids is a tensor of shape \(batch, seq\), not dict"
    ):
        read_activations(llama, inputs)


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
        assert not torch.equal(logits_of(twin, random_ids()), logits_of(llama, random_ids()))
    assert find_decoder_layers(twin) is twin.model.layers


def test_a_model_that_was_read_can_be_freed():
    model = build("llama")
    with record_activations(model) as activations, torch.no_grad():
        model(random_ids())
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
    assert activations[1].shape == (2, 7, HIDDEN)


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


@pytest.mark.parametrize("part", range(12))
def test_hooks_gone_after_an_interrupt_anywhere(llama, part):
    """Ctrl-C strikes between any two lines of any function, those of this package's among them."""

    def strike(at: int | None) -> int:
        """Run the model and interrupt it at this line; returns how many lines there were."""
        lines = 0

        def trace(frame, event, arg):
            nonlocal lines
            lines += event == "line"
            if lines == at:
                raise KeyboardInterrupt
            return trace

        sys.settrace(trace)
        try:
            llama(random_ids())
        finally:
            sys.settrace(None)
        return lines

    before = count_hooks(llama)
    with torch.no_grad(), record_activations(llama), edit_activations(llama, {1: torch.clone}):
        count = strike(None)
    at = int((part + 0.5) / 12 * count)
    with pytest.raises(KeyboardInterrupt), torch.no_grad():
        with record_activations(llama), edit_activations(llama, {1: torch.clone}):
            strike(at)
    assert count_hooks(llama) == before
    assert_same(read_activations(llama, random_ids()), hidden_states(llama, random_ids()))


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


# -- which positions -------------------------------------------------------------------------

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
    with torch.no_grad(), record_activations(llama, 2, positions="last") as activations:
        llama(random_ids())
    assert torch.equal(activations[2], hidden_states(llama, random_ids())[2][:, -1:])


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
    with torch.no_grad(), record_activations(llama, positions=positions) as activations:
        llama(random_ids())
    assert_same(activations, [h[:, columns] for h in hidden_states(llama, random_ids())])


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
    with pytest.raises(ValueError, match="this pass continues another"):
        with record_activations(llama, positions=[0]):
            llama.generate(random_ids(), max_new_tokens=3, do_sample=False, eos_token_id=None)


def test_mask_of_a_pass_that_broke_off_is_forgotten(llama):
    mask = torch.tensor([[1, 1, 1, 0, 0, 0, 0], [1] * 7])
    with torch.no_grad(), record_activations(llama, 2, positions="last") as activations:
        with pytest.raises(IndexError):
            llama(random_ids() + VOCAB, attention_mask=mask)
        llama(random_ids())
    assert torch.equal(activations[2], hidden_states(llama, random_ids())[2][:, -1:])


def test_row_without_a_real_token(llama):
    mask = torch.tensor([[0] * 7, [1] * 7])
    with pytest.raises(ValueError, match="a row of this input has no real token"):
        read_activations(llama, random_ids(), positions="last", attention_mask=mask)


def test_mask_of_another_shape(llama):
    mask = torch.ones(2, 1, 7, 7, dtype=torch.bool).tril()
    with pytest.raises(ValueError, match=r"needs an attention mask of shape \(batch, seq\)"):
        read_activations(llama, random_ids(), positions="last", attention_mask=mask)


# -- what is kept, and where -----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gptj"])
@pytest.mark.parametrize(
    ("options", "number"),
    [
        ({}, 4 * 2 * 7),
        ({"layers": [1, 2]}, 2 * 2 * 7),
        ({"positions": "last"}, 4 * 2),
        ({"positions": [0, 2, 4]}, 4 * 2 * 3),
        ({"positions": "last", "to": "cpu"}, 4 * 2),
        ({"layers": 0, "to": "cpu"}, 2 * 7),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bytes_kept(kind, options, number, dtype):
    """Layers x rows x positions x hidden x bytes per number, and not one more."""
    model = build(kind)
    with torch.no_grad(), record_activations(model, dtype=dtype, **options) as activations:
        model(random_ids())
    kept = {t.untyped_storage().data_ptr(): t.untyped_storage() for t in activations.values()}
    assert sum(s.nbytes() for s in kept.values()) == number * HIDDEN * dtype.itemsize


def test_layers_are_let_go_when_positions_are_kept(llama):
    """The whole output of a layer dies with the forward pass."""
    outputs = []
    hook = llama.model.layers[1].register_forward_hook(
        lambda module, args, output: outputs.append(weakref.ref(stream(output).untyped_storage()))
    )
    with torch.no_grad(), record_activations(llama, positions="last"):
        llama(random_ids())
    hook.remove()
    gc.collect()
    assert outputs[0]() is None


def test_a_view_does_not_keep_a_bigger_tensor_alive(llama):
    layer = llama.model.layers[0]

    def view(module, args, output):
        return with_stream(output, torch.cat([stream(output)] * 2, 1)[:, :7])

    hook = layer.register_forward_hook(view)
    with torch.no_grad(), record_activations(llama, 1) as activations:
        llama(random_ids())
    hook.remove()
    assert activations[1].untyped_storage().nbytes() == activations[1].nbytes


def test_nothing_is_copied_by_default(llama):
    outputs = []
    hook = llama.model.layers[1].register_forward_hook(lambda *args: outputs.append(args[2]))
    with torch.no_grad(), record_activations(llama) as activations:
        llama(random_ids())
    hook.remove()
    assert activations[2].data_ptr() == stream(outputs[0]).data_ptr()


def test_change_in_place_after_recording(llama):
    """A later hook that edits in place would change the record: reading says so."""

    def in_place(module, args, output):
        stream(output).add_(1)

    expected = hidden_states(llama, random_ids())
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
    with torch.no_grad(), record_activations(llama) as activations:
        llama(random_ids())
    activations[1].add_(1)  # the reader's own change is the reader's business
    assert torch.equal(activations[1], expected[1] + 1)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("options", [{}, {"positions": "last"}, {"to": "cpu"}])
def test_grad_modes(llama, mode, options):
    """What is kept can train a probe afterwards, whatever the model ran under."""
    with mode(), record_activations(llama, 2, **options) as activations:
        llama(random_ids())
    kept = activations[2]
    assert not kept.requires_grad and not kept.is_inference()
    probe = torch.nn.Linear(HIDDEN, 1)
    probe(kept).sum().backward()
    assert probe.weight.grad is not None


@pytest.mark.parametrize("options", [{}, {"positions": "last"}, {"to": "cpu"}])
def test_tensors_stay_in_the_graph_when_asked(llama, options):
    with record_activations(llama, detach=False, **options) as activations:
        loss = llama(random_ids()).logits.sum()
    embedding = llama.model.embed_tokens.weight
    (grad,) = torch.autograd.grad(activations[2].sum(), embedding, retain_graph=True)
    assert grad.abs().sum() > 0
    if not options:  # and the loss reaches the recorded tensor itself
        (grad,) = torch.autograd.grad(loss, activations[2])
        assert grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(model, dtype):
    model = model.to(dtype)
    with torch.no_grad(), record_activations(model) as activations:
        model(random_ids())
    assert_same(activations, hidden_states(model, random_ids()))
    assert activations[1].dtype is dtype
    with torch.no_grad(), record_activations(model, 1, dtype=torch.float32) as activations:
        model(random_ids())
    assert torch.equal(activations[1], hidden_states(model, random_ids())[1].float())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_copies_from_the_gpu(llama):
    llama, ids = build("llama").cuda(), random_ids().cuda()
    expected = hidden_states(llama, ids)[2].cpu()
    with torch.no_grad(), record_activations(llama, to="cpu") as activations:
        llama(ids)
        assert torch.equal(activations[2], expected)
        llama(ids)
    assert activations[2].device.type == "cpu" and activations[2].is_pinned()
    assert torch.equal(activations[2], expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("positions", [None, [0, -1]])
def test_what_the_gpu_changes_in_place_is_copied_before(positions):
    """The copy may be late: the layer's output is zeroed right after it was recorded."""
    llama = build("llama").cuda()
    ids = torch.randint(3, 90, (1024, 96), generator=torch.Generator().manual_seed(0)).cuda()
    expected = hidden_states(llama, ids)[1].cpu()
    expected = expected if positions is None else expected[:, positions]
    for _ in range(20):
        with torch.no_grad(), record_activations(llama, 1, positions=positions, to="cpu") as kept:
            zero = find_decoder_layers(llama)[0].register_forward_hook(lambda *a: a[-1].zero_())
            llama(ids)
            zero.remove()
        assert torch.equal(kept[1], expected)


# -- stopping early, and reading without logits ----------------------------------------------


@pytest.mark.parametrize("last", range(LAYERS + 1))
def test_stop(model, last):
    """Nothing after the last layer asked for is computed, and the block ends there."""
    layers, ran = find_decoder_layers(model), []
    parts = (*layers, model.lm_head)
    hooks = [part.register_forward_hook(lambda m, *_: ran.append(m)) for part in parts]
    before = count_hooks(model)
    with torch.no_grad(), record_activations(model, [last, 0], stop=True) as activations:
        model(random_ids())
        raise AssertionError("what follows the call must not run")
    assert ran == list(layers[:last])
    assert count_hooks(model) == before
    for hook in hooks:
        hook.remove()
    assert torch.equal(activations[last], hidden_states(model, random_ids())[last])


def test_stop_inside_another_block(llama):
    """The block that asked for it stops, and only that one."""
    with torch.no_grad(), record_activations(llama) as outer:
        with record_activations(llama, 1, stop=True) as inner:
            llama(random_ids())
        assert inner[1].shape == (2, 7, HIDDEN)
        llama(random_ids())
    assert_same(outer, hidden_states(llama, random_ids()))
    with torch.no_grad(), record_activations(llama, 1, stop=True) as outer:
        with record_activations(llama) as inner:
            llama(random_ids())
        raise AssertionError("the outer block must end")
    assert outer[1].shape == (2, 7, HIDDEN)
    with pytest.raises(KeyError, match="run the model"):
        inner[0]  # that pass was never complete


def test_read_activations(model):
    ids, mask = random_ids(3), torch.tensor(PADDED["left"][0])
    expected = hidden_states(model, ids, attention_mask=mask)
    assert_same(read_activations(model, ids, attention_mask=mask), expected)
    last = read_activations(model, ids, layers=-1, positions="last", attention_mask=mask)
    assert list(last) == [LAYERS]
    assert torch.equal(last[-1], expected[-1][:, -1:])
    assert not last[-1].requires_grad


def test_read_activations_runs_no_head_and_fills_no_cache(llama, monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("must not run")

    monkeypatch.setattr(llama.lm_head, "forward", fail)
    monkeypatch.setattr(llama.model.norm, "forward", fail)
    monkeypatch.setattr(DynamicCache, "update", fail)
    assert read_activations(llama, random_ids())[-1].shape == (2, 7, HIDDEN)


# -- passes that belong together -------------------------------------------------------------


def test_beam_search_is_refused(llama):
    """Its rows change places between two steps, so that no row of a record is one sequence."""
    before = count_hooks(llama)
    with pytest.raises(ValueError, match="Generate first, then record one pass"):
        with record_activations(llama):
            llama.generate(random_ids(), max_new_tokens=6, num_beams=3, eos_token_id=None)
    assert count_hooks(llama) == before


def test_several_samples_of_each_prompt(llama):
    with record_activations(llama) as activations:
        out = llama.generate(
            random_ids(),
            max_new_tokens=5,
            do_sample=True,
            num_return_sequences=2,
            eos_token_id=None,
        )
    expected = hidden_states(llama, out[:, :-1])
    for layer in activations:
        torch.testing.assert_close(activations[layer], expected[layer])


@pytest.mark.parametrize(
    "options",
    [
        {"cache_implementation": "static", "eos_token_id": None},
        {"prompt_lookup_num_tokens": 3, "eos_token_id": -1},
    ],
)
def test_other_ways_to_generate(llama, options):
    """A static cache, and assisted decoding, which takes tokens back out of the cache."""
    ids = random_ids(1, 4).repeat(1, 3)
    with record_activations(llama) as activations:
        out = llama.generate(ids, max_new_tokens=8, do_sample=False, **options)
    expected = hidden_states(llama, out[:, :-1])
    for layer in activations:  # assisted decoding may have tried tokens after the last one kept
        found = activations[layer][:, : out.shape[1] - 1]
        torch.testing.assert_close(found, expected[layer])


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


def test_layer_that_the_model_left_out():
    """Mllama runs its cross-attention layers only where there is an image."""
    config = MllamaTextConfig(
        vocab_size=VOCAB,
        hidden_size=HIDDEN,
        intermediate_size=48,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=4,
        cross_attention_layers=[1],
        rope_scaling={"rope_type": "default"},
        pad_token_id=0,
    )
    activations = read_activations(MllamaForCausalLM(config).eval(), random_ids())
    assert activations[1].shape == activations[3].shape == (2, 7, HIDDEN)
    with pytest.raises(KeyError, match="the model left this decoder layer out"):
        activations[2]


# -- training --------------------------------------------------------------------------------


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing(model, reentrant):
    """A layer runs twice, in the forward and in the backward pass, and is recorded once."""
    ids = random_ids()
    expected = hidden_states(model, ids)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model.train()
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    vector = torch.randn(HIDDEN, generator=torch.Generator().manual_seed(2))
    grads = []
    for checkpointing in (True, False):
        if not checkpointing:
            model.gradient_checkpointing_disable()
        model.zero_grad()
        with edit_activations(model, {3: lambda hidden: hidden + vector}):
            with record_activations(model) as activations:
                model(ids, use_cache=False).logits.logsumexp(-1).sum().backward()
        assert_same(activations, [*expected[:3], expected[3] + vector])
        grads.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for with_checkpointing, without in zip(*grads):
        torch.testing.assert_close(with_checkpointing, without)


# -- editing ---------------------------------------------------------------------------------


def logits_of(model, ids) -> torch.Tensor:
    with torch.no_grad():
        return model(ids).logits


@pytest.mark.parametrize("layer", [0, 1, LAYERS, -1])
def test_edit(model, layer):
    """The same as a hook placed by hand."""
    layers, ids = find_decoder_layers(model), random_ids()
    vector = torch.randn(HIDDEN, generator=torch.Generator().manual_seed(2))
    number = layer % (LAYERS + 1)

    def before(module, args, kwargs):
        if args:
            return (args[0] + vector, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": kwargs["hidden_states"] + vector}

    def after(module, args, output):
        return with_stream(output, stream(output) + vector)

    if number == 0:
        hook = layers[0].register_forward_pre_hook(before, with_kwargs=True)
    else:
        hook = layers[number - 1].register_forward_hook(after)
    expected = logits_of(model, ids)
    hook.remove()

    hooks = count_hooks(model)
    with edit_activations(model, {layer: lambda hidden: hidden + vector}):
        assert torch.equal(logits_of(model, ids), expected)
    assert count_hooks(model) == hooks
    assert not torch.equal(logits_of(model, ids), expected)


def test_edit_that_changes_nothing(model):
    before = logits_of(model, random_ids())
    with edit_activations(model, {n: lambda hidden: hidden for n in range(LAYERS + 1)}):
        assert torch.equal(logits_of(model, random_ids()), before)


def test_edit_in_place(llama):
    """Changing the tensor itself and giving it back works too."""

    def double(hidden):
        return hidden.mul_(2)

    with edit_activations(llama, {1: lambda hidden: hidden * 2}):
        expected = logits_of(llama, random_ids())
    with edit_activations(llama, {1: double}):
        assert torch.equal(logits_of(llama, random_ids()), expected)


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
    before = count_hooks(model)
    with pytest.raises(ValueError, match=message), edit_activations(model, {2: edit}):
        logits_of(model, random_ids())
    assert count_hooks(model) == before


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_error_in_the_edit(llama, error):
    def fail(hidden):
        raise error

    before = count_hooks(llama)
    with pytest.raises(error), edit_activations(llama, {1: fail}):
        llama(random_ids())
    assert count_hooks(llama) == before


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
    before = count_hooks(llama)
    with pytest.raises(ValueError, match=message), edit_activations(llama, edits):
        raise AssertionError("the block must not run")
    assert count_hooks(llama) == before


# -- several blocks, several threads ---------------------------------------------------------


def test_two_recorders(llama):
    ids = random_ids()
    with torch.no_grad(), record_activations(llama) as first:
        with record_activations(llama, [1, 2], positions="last") as second:
            llama(ids)
        llama(ids[:1])
    assert torch.equal(second[2], hidden_states(llama, ids)[2][:, -1:])
    assert_same(first, hidden_states(llama, ids[:1]))


def test_recorder_and_editor(model):
    """At one layer they act in the order in which their blocks were entered."""
    ids = random_ids()
    expected = hidden_states(model, ids)
    for layer in (0, 2):
        with torch.no_grad(), record_activations(model) as before:
            with edit_activations(model, {layer: lambda hidden: hidden + 1}):
                with record_activations(model) as after:
                    model(ids)
        assert torch.equal(before[layer], expected[layer])
        assert torch.equal(after[layer], expected[layer] + 1)
        assert torch.equal(before[3], after[3])
        assert not torch.equal(before[3], expected[3])


def test_threads_with_a_model_each():
    models = [build(kind) for kind in ("llama", "gpt2", "gptj", "llama")]
    expected = [hidden_states(model, random_ids()) for model in models]
    results, barrier = [None] * len(models), threading.Barrier(len(models))

    def work(i):
        barrier.wait()
        for _ in range(5):
            with torch.no_grad(), record_activations(models[i]) as activations:
                models[i](random_ids())
        results[i] = activations

    threads = [threading.Thread(target=work, args=[i]) for i in range(len(models))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for activations, states in zip(results, expected):
        assert_same(activations, states)


# -- models in wrappers ----------------------------------------------------------------------


def test_compiled_model(llama):
    """A graph made before the block does not see its hooks, so the block runs without graphs."""
    ids = random_ids()
    expected, plain = hidden_states(llama, ids), logits_of(llama, ids)
    graphs = []

    def backend(graph, inputs):  # a compiler that notes what it is given, and runs it as it is
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(build("llama"), backend=backend)
    torch.testing.assert_close(logits_of(compiled, ids), plain)
    assert find_decoder_layers(compiled) is compiled._orig_mod.model.layers
    count = len(graphs)
    assert count
    with torch.no_grad(), record_activations(compiled) as activations:
        compiled(ids)
    assert_same(activations, expected)
    assert_same(read_activations(compiled, ids), expected)
    with edit_activations(compiled, {1: lambda hidden: hidden * 0}):
        assert not torch.equal(logits_of(compiled, ids), plain)
    torch.testing.assert_close(logits_of(compiled, ids), plain)
    assert len(graphs) == count  # nothing was compiled inside, and the old graph is in use again


def test_model_compiled_in_place(llama):
    ids = random_ids()
    expected = hidden_states(llama, ids)
    llama.compile(backend="eager")
    logits_of(llama, ids)
    with torch.no_grad(), record_activations(llama) as activations:
        llama(ids)
    assert_same(activations, expected)


@pytest.mark.skipif(not shutil.which("c++"), reason="inductor needs a C++ compiler")
def test_compiled_for_real():
    """With the default compiler: before, inside and after the block."""
    config = GPT2Config(n_layer=1, n_embd=16, n_head=2, vocab_size=VOCAB, n_positions=16)
    model, ids = GPT2LMHeadModel(config).eval(), random_ids()
    expected, plain = hidden_states(model, ids), logits_of(model, ids)
    compiled = torch.compile(model)
    torch.testing.assert_close(logits_of(compiled, ids), plain)
    with torch.no_grad(), record_activations(compiled) as activations:
        compiled(ids)
    assert torch.equal(activations[0], expected[0]) and torch.equal(activations[1], expected[1])
    torch.testing.assert_close(logits_of(compiled, ids), plain)


def test_torch_without_stances(llama, monkeypatch):
    """Before torch 2.6 nothing needs to be set for a model that is not compiled."""
    monkeypatch.delattr(torch.compiler, "set_stance", raising=False)
    with torch.no_grad(), record_activations(llama) as activations:
        llama(random_ids())
    assert_same(activations, hidden_states(llama, random_ids()))


def test_uncompiled_blocks_may_overlap(llama):
    """The last of two blocks that overlap brings compiling back, whichever was entered first."""

    def compiles() -> bool:
        graphs = []
        torch._dynamo.reset()
        torch.compile(lambda x: x + 1, backend=lambda graph, _: graphs.append(graph) or graph)(ids)
        return len(graphs) == 1

    ids = random_ids()
    assert compiles()
    one, two = record_activations(llama), record_activations(llama)
    one.__enter__()
    two.__enter__()
    one.__exit__(None, None, None)
    assert not compiles()
    two.__exit__(None, None, None)
    assert compiles()


def test_peft_model(llama):
    peft = pytest.importorskip("peft")
    ids, base = random_ids(), hidden_states(llama, random_ids())
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    wrapped = peft.get_peft_model(llama, config).eval()
    assert find_decoder_layers(wrapped) is llama.model.layers
    with torch.no_grad(), record_activations(wrapped) as activations:
        wrapped(input_ids=ids)
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
    with torch.no_grad(), record_activations(wrapped) as activations:
        wrapped(input_ids=random_ids())
    assert activations[1].shape == (2, 10, HIDDEN)


@pytest.mark.parametrize("how", ["hooks", "offload"])
def test_model_dispatched_by_accelerate(llama, how):
    """The hooks of accelerate, which put weights in place and move inputs, stay and work."""
    accelerate = pytest.importorskip("accelerate")
    ids = random_ids()
    expected = hidden_states(llama, ids)
    if how == "hooks":
        places = {"model.embed_tokens": "cpu", "model.layers": "cpu", "model.norm": "cpu"}
        places |= {"model.rotary_emb": "cpu", "lm_head": "cpu"}
        llama = accelerate.dispatch_model(llama, places, force_hooks=True)
    else:
        llama = accelerate.cpu_offload(llama, "cpu")
    with torch.no_grad(), record_activations(llama) as activations:
        llama(ids)
    assert_same(activations, expected)
    assert_same(read_activations(llama, ids), expected)
    with edit_activations(llama, {1: lambda hidden: hidden * 2}):
        edited = logits_of(llama, ids)
    model = build("llama")
    with edit_activations(model, {1: lambda hidden: hidden * 2}):
        assert torch.equal(logits_of(model, ids), edited)


# -- models without one list of decoder layers -----------------------------------------------


def build_bart() -> BartForConditionalGeneration:
    sizes = {"d_model": HIDDEN, "vocab_size": VOCAB, "encoder_layers": 2, "decoder_layers": LAYERS}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
    return BartForConditionalGeneration(BartConfig(**sizes, **heads)).eval()


def test_encoder_decoder_is_refused_unless_a_part_is_named():
    bart = build_bart()
    message = r"model.encoder.layers \(2\), model.decoder.layers \(3\).*pass the part that owns it"
    with pytest.raises(ValueError, match=message):
        find_decoder_layers(bart)
    assert find_decoder_layers(bart.model.decoder) is bart.model.decoder.layers
    ids = random_ids()
    with torch.no_grad(), record_activations(bart.model.decoder) as activations:
        out = bart(ids, decoder_input_ids=ids[:, :4], output_hidden_states=True, use_cache=False)
    assert_same(activations, out.decoder_hidden_states)


def test_shared_layers_are_refused():
    albert = AlbertForMaskedLM(
        AlbertConfig(
            vocab_size=VOCAB,
            hidden_size=HIDDEN,
            embedding_size=HIDDEN,
            num_attention_heads=4,
            intermediate_size=48,
            num_hidden_layers=LAYERS,
        )
    ).eval()
    with pytest.raises(ValueError, match=r"no single list of decoder layers.*\(1\)"):
        find_decoder_layers(albert)
    # Named by hand, the one layer runs three times, which no layer number can tell.
    with pytest.raises(ValueError, match="ran twice in one forward pass"):
        with record_activations(albert.albert.encoder):
            albert(random_ids())


def test_a_layer_that_runs_twice_is_refused(llama):
    llama.model.layers[2] = llama.model.layers[1]
    with pytest.raises(ValueError, match="ran twice"), record_activations(llama):
        llama(random_ids(), use_cache=False)
