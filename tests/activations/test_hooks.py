"""Hooks never outlive their block, and do their work in models that others have wrapped."""

from __future__ import annotations

import gc
import shutil
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from streams import (
    HIDDEN,
    LAYERS,
    VOCAB,
    assert_same,
    build,
    hidden_states,
    logits_of,
    own_hooks,
    random_ids,
    record,
)
from tutorial_utils import (
    edit_activations,
    find_decoder_layers,
    read_activations,
    record_activations,
)
from tutorial_utils.lens import unembed


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, GeneratorExit])
@pytest.mark.parametrize("layer", range(LAYERS))
def test_hooks_gone_after_an_error(llama, error, layer):
    def fail(module, args):
        raise error

    other = llama.model.layers[layer].self_attn.register_forward_pre_hook(fail)
    with pytest.raises(error), record_activations(llama):
        llama(random_ids())
    other.remove()
    assert_same(record(llama), hidden_states(llama))


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

    with torch.no_grad(), record_activations(llama), edit_activations(llama, {1: torch.clone}):
        count = strike(None)
    at = int((part + 0.5) / 12 * count)
    edit = edit_activations(llama, {1: torch.clone})
    with pytest.raises(KeyboardInterrupt), torch.no_grad(), record_activations(llama), edit:
        strike(at)
    assert_same(read_activations(llama, random_ids()), hidden_states(llama))


def test_hooks_gone_after_an_abandoned_generator(llama):
    def steps():
        with record_activations(llama) as activations:
            while True:
                llama(random_ids())
                yield activations[1]

    generator = steps()
    next(generator)
    assert own_hooks(llama)
    del generator
    gc.collect()
    assert not own_hooks(llama)


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


def test_threads_with_a_model_each():
    models = [build(kind) for kind in ("llama", "gpt2", "gptj", "llama")]
    expected = [hidden_states(model) for model in models]
    results, barrier = [None] * len(models), threading.Barrier(len(models))

    def work(i):
        barrier.wait()
        for _ in range(5):
            results[i] = record(models[i])

    threads = [threading.Thread(target=work, args=[i]) for i in range(len(models))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for activations, states in zip(results, expected):
        assert_same(activations, states)


def in_a_thread(work):
    """What this gives, or raises, in a thread of its own."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result(timeout=60)


def test_two_threads_with_one_model_are_refused(llama):
    """Each would record and edit the passes of the other."""
    message = "another thread records or edits the activations of this model"
    with record_activations(llama):
        with pytest.raises(ValueError, match=message):
            in_a_thread(lambda: read_activations(llama, random_ids()))
        with pytest.raises(ValueError, match=message):
            in_a_thread(edit_activations(llama, {1: abs}).__enter__)
    assert_same(in_a_thread(lambda: read_activations(llama, random_ids())), hidden_states(llama))


def test_a_thread_that_ended_inside_its_block_is_no_other(llama):
    expected, abandoned = hidden_states(llama), record_activations(llama)
    in_a_thread(abandoned.__enter__)
    assert_same(read_activations(llama, random_ids()), expected)
    abandoned.__exit__(None, None, None)


def test_generate_in_a_thread_inside_the_block(llama):
    """As streamers do it, with a logits processor that looks through the lens."""

    def look(ids, scores):
        seen.append(unembed(llama, activations[-1][:, -1]))
        return scores

    def generate():
        options = {"do_sample": False, "eos_token_id": None, "max_new_tokens": 3}
        return llama.generate(random_ids(), logits_processor=[look], **options)

    seen = []
    with record_activations(llama) as activations:
        out = in_a_thread(generate)
    torch.testing.assert_close(activations[2], hidden_states(llama, out[:, :-1])[2])
    torch.testing.assert_close(seen[-1], logits_of(llama, out[:, :-1])[:, -1])


def test_asides_of_two_threads_do_not_see_each_other(llama):
    """The lens runs the model for itself: two threads may look through it at the same time."""
    hidden = [torch.randn(4, HIDDEN, generator=torch.Generator().manual_seed(i)) for i in (0, 1)]
    expected = [unembed(llama, rows) for rows in hidden]
    with ThreadPoolExecutor(2) as pool:
        for _ in range(20):
            for found, wanted in zip(pool.map(lambda rows: unembed(llama, rows), hidden), expected):
                assert torch.equal(found, wanted)


def test_compiled_model(llama):
    """A graph made before the block does not see its hooks, so the block runs without graphs."""
    expected, plain, graphs = hidden_states(llama), logits_of(llama), []

    def backend(graph, inputs):  # a compiler that notes what it is given, and runs it as it is
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(build("llama"), backend=backend)
    torch.testing.assert_close(logits_of(compiled), plain)
    assert find_decoder_layers(compiled) is compiled._orig_mod.model.layers
    count = len(graphs)
    assert count
    assert_same(record(compiled), expected)
    assert_same(read_activations(compiled, random_ids()), expected)
    with edit_activations(compiled, {1: lambda hidden: hidden * 0}):
        assert not torch.equal(logits_of(compiled), plain)
    torch.testing.assert_close(logits_of(compiled), plain)
    assert len(graphs) == count  # nothing was compiled inside, and the old graph is in use again


def test_model_compiled_in_place(llama):
    expected = hidden_states(llama)
    llama.compile(backend="eager")
    logits_of(llama)
    assert_same(record(llama), expected)


@pytest.mark.skipif(not shutil.which("c++"), reason="inductor needs a C++ compiler")
def test_compiled_for_real():
    """With the default compiler: before, inside and after the block."""
    config = GPT2Config(n_layer=1, n_embd=16, n_head=2, vocab_size=VOCAB, n_positions=16)
    model = GPT2LMHeadModel(config).eval()
    expected, plain = hidden_states(model), logits_of(model)
    compiled = torch.compile(model)
    torch.testing.assert_close(logits_of(compiled), plain)
    activations = record(compiled)
    assert torch.equal(activations[0], expected[0]) and torch.equal(activations[1], expected[1])
    torch.testing.assert_close(logits_of(compiled), plain)


def test_torch_without_stances(llama, monkeypatch):
    """Before torch 2.6 nothing needs to be set for a model that is not compiled."""
    monkeypatch.delattr(torch.compiler, "set_stance", raising=False)
    assert_same(record(llama), hidden_states(llama))


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


@pytest.mark.parametrize("how", ["hooks", "offload"])
def test_model_dispatched_by_accelerate(llama, how):
    """The hooks of accelerate, which put weights in place and move inputs, stay and work."""
    accelerate = pytest.importorskip("accelerate")
    expected = hidden_states(llama)
    if how == "hooks":
        places = {"model.embed_tokens": "cpu", "model.layers": "cpu", "model.norm": "cpu"}
        places |= {"model.rotary_emb": "cpu", "lm_head": "cpu"}
        llama = accelerate.dispatch_model(llama, places, force_hooks=True)
    else:
        llama = accelerate.cpu_offload(llama, "cpu")
    assert_same(record(llama), expected)
    assert_same(read_activations(llama, random_ids()), expected)
    edited = []
    for model in (llama, build("llama")):
        with edit_activations(model, {1: lambda hidden: hidden * 2}):
            edited.append(logits_of(model))
    assert torch.equal(*edited)
