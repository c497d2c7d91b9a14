"""Promises of tutorial_utils.decoding, each a test. Models are tiny and random."""

from __future__ import annotations

import inspect
import itertools
import math

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    LogitsProcessorList,
    MinPLogitsWarper,
    PreTrainedTokenizerFast,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from tiny_models import count_hooks, gpt2_tokenizer, make_gpt2, make_llama
from tutorial_utils import (
    decoding_steps,
    encode,
    filter_logits,
    load_model,
    next_token_logits,
    next_token_probs,
    token_strings,
    top_tokens,
)

PROMPT = "Trump works at McDonald's. Trump works at"
PROMPTS = [PROMPT, "Hi", "The capital of France is"]


@pytest.fixture
def small_context(tmp_path):
    return load_model(make_gpt2(tmp_path, layers=1, context=16), device="cpu")


# The next token


def test_logits_are_those_of_a_plain_forward_pass_also_in_a_padded_batch(tiny):
    check_each_row_is_its_prompt_alone(*tiny)


def test_padding_does_no_harm_to_a_model_without_position_ids():
    tokenizer = gpt2_tokenizer()
    torch.manual_seed(0)
    config = BloomConfig(vocab_size=len(tokenizer), hidden_size=32, n_layer=2, n_head=4)
    check_each_row_is_its_prompt_alone(BloomForCausalLM(config).eval(), tokenizer)


def check_each_row_is_its_prompt_alone(model, tokenizer):
    batch = next_token_logits(model, tokenizer, PROMPTS)
    for row, prompt in zip(batch, PROMPTS, strict=True):
        with torch.no_grad():
            alone = model(torch.tensor([tokenizer(prompt)["input_ids"]])).logits[0, -1]
        torch.testing.assert_close(row, alone, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(next_token_logits(model, tokenizer, prompt)[0], alone)


def test_only_the_last_position_goes_through_the_unembedding(tiny):
    model, tokenizer = tiny
    if "logits_to_keep" not in inspect.signature(model.forward).parameters:
        pytest.skip("in this version of transformers this model always makes all logits")
    seen = []
    head = model.get_output_embeddings()
    handle = head.register_forward_hook(lambda module, args, output: seen.append(output.shape))
    try:
        next_token_logits(model, tokenizer, PROMPTS)
    finally:
        handle.remove()
    assert [tuple(shape)[:2] for shape in seen] == [(3, 1)]


def test_probabilities_are_float32_sum_to_one_and_can_train_a_probe(tmp_path):
    model, tokenizer = load_model(make_llama(tmp_path), device="cpu", dtype="bfloat16")
    probs = next_token_probs(model, tokenizer, PROMPTS)
    assert probs.dtype == torch.float32
    assert probs.shape == (3, model.config.vocab_size)
    torch.testing.assert_close(probs.sum(dim=-1), torch.ones(3))
    assert not probs.requires_grad
    logits = next_token_logits(model, tokenizer, PROMPTS)
    step = next(decoding_steps(model, tokenizer, PROMPT, max_new_tokens=1))
    assert not any(tensor.is_inference() for tensor in (probs, logits, step.probs))
    probe = torch.nn.Linear(probs.shape[1], 1)
    probe(probs).sum().backward()
    assert probe.weight.grad is not None


# Tokens as a reader sees them


def test_tokens_of_a_byte_level_tokenizer(tiny):
    _, tokenizer = tiny
    ids = tokenizer("the ball\n é$😀")["input_ids"]
    strings = token_strings(tokenizer, torch.tensor(ids))
    assert "".join(strings).endswith(" ball\n <0xC3><0xA9>$<0xF0><0x9F><0x98><0x80>")
    assert " ball" in strings
    assert token_strings(tokenizer, [tokenizer.eos_token_id]) == [tokenizer.eos_token]
    assert token_strings(tokenizer, []) == []


def test_a_token_of_whole_and_broken_characters():
    vocab = {"<s>": 0, "ĠâĢ": 1, "ï¿½": 2, "Ċ": 3, "Ã©": 4}
    inner = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>")
    wanted = ["<s>", " <0xE2><0x80>", "\ufffd", "\n", "é", "<id 5>", "<id -1>"]
    assert token_strings(tokenizer, [0, 1, 2, 3, 4, 5, -1]) == wanted


def test_tokens_of_a_sentencepiece_tokenizer_keep_their_spaces():
    vocab = {"<unk>": 0, "▁the": 1, "re": 2, "▁": 3, "▁▁▁": 4, "<0xE2>": 5, "<0x0A>": 6, "▁é": 7}
    inner = Tokenizer(models.BPE(vocab=vocab, merges=[], byte_fallback=True, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    inner.decoder = decoders.Sequence([*parts, decoders.Strip(" ", 1, 0)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>")
    wanted = ["<unk>", " the", "re", " ", "   ", "<0xE2>", "\n", " é"]
    assert token_strings(tokenizer, range(8)) == wanted


def test_top_tokens_are_sorted_and_named(tiny):
    _, tokenizer = tiny
    probs = torch.zeros(len(tokenizer) + 8)  # a model's vocabulary is often rounded up
    probs[[40, 50, len(tokenizer) + 1]] = torch.tensor([0.25, 0.5, 0.125])
    names = [*token_strings(tokenizer, [50, 40]), f"<id {len(tokenizer) + 1}>"]
    assert top_tokens(probs, tokenizer, k=3) == list(zip(names, [0.5, 0.25, 0.125], strict=True))


@pytest.mark.parametrize("k", [0, 11])
def test_top_tokens_refuses_what_is_not_there(tiny, k):
    with pytest.raises(ValueError, match=f"k is {k}: it must be between 1 and 10"):
        top_tokens(torch.ones(10), tiny[1], k=k)
    with pytest.raises(ValueError, match=r"\(vocab,\), not \(1, 10\): use probs\[0\]"):
        top_tokens(torch.ones(1, 10), tiny[1])
    with pytest.raises(ValueError, match=r"one row, \(seq,\), not \(1, 3\): use ids\[0\]"):
        token_strings(tiny[1], torch.tensor([[1, 2, 3]]))


# Filters


SETTINGS = list(
    itertools.product(
        [1.0, 0.5, 2.0], [None, 1, 5, 1000], [None, 1e-9, 0.5, 0.9, 1.0], [None, 0.0, 0.05, 1.0]
    )
)


def with_transformers(logits, temperature, top_k, top_p, min_p):
    chain = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
    if top_k is not None:
        chain.append(TopKLogitsWarper(top_k))
    if top_p is not None and top_p < 1:  # at 1, generate leaves it out
        chain.append(TopPLogitsWarper(top_p))
    if min_p is not None:
        chain.append(MinPLogitsWarper(min_p))
    return chain(None, logits)


@pytest.mark.parametrize("kind", ["smooth", "ties", "flat", "peaked", "masked"])
def test_filters_equal_transformers_bit_for_bit(kind):
    logits = torch.randn(3, 64, generator=torch.Generator().manual_seed(0)) * 3
    if kind == "ties":
        logits = logits.round()
    elif kind == "flat":
        logits = torch.zeros(3, 64)
    elif kind == "peaked":
        logits[:, 7] = 200.0
    elif kind == "masked":
        logits[:, ::2] = -math.inf
    before = logits.clone()
    for setting in SETTINGS:
        names = dict(zip(["temperature", "top_k", "top_p", "min_p"], setting, strict=True))
        ours = filter_logits(logits, **names)
        assert torch.equal(ours, with_transformers(logits, *setting)), names
        assert torch.equal(filter_logits(logits[1], **names), ours[1]), names
        assert ours.isfinite().any(dim=-1).all()
    assert torch.equal(logits, before)


def test_half_precision_logits_are_filtered_in_float32():
    logits = torch.randn(8).to(torch.bfloat16)
    assert torch.equal(filter_logits(logits, temperature=0.3), logits.float() / 0.3)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"temperature": 0}, "temperature is 0: it must be a finite .* greedy"),
        (
            {"temperature": 1e-40},
            "temperature is 1e-40: it must be a finite number above 1e-30.* greedy",
        ),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"top_k": 0}, "top_k is 0: it must be a whole number from 1"),
        ({"top_k": 2.5}, "top_k is 2.5"),
        ({"top_p": 0.0}, "top_p is 0.0: it must be above 0 and at most 1"),
        ({"top_p": 1.1}, "top_p is 1.1"),
        ({"min_p": -0.1}, "min_p is -0.1: it must be between 0 and 1"),
        ({"min_p": 2}, "min_p is 2"),
    ],
)
def test_settings_that_make_no_sense(setting, message):
    with pytest.raises(ValueError, match=message):
        filter_logits(torch.zeros(4), **setting)


# Decoding


def generated(model, tokenizer, count=24, **options):
    inputs = encode(model, tokenizer, PROMPT)
    options = {"do_sample": False, "pad_token_id": tokenizer.eos_token_id, **options}
    return model.generate(**inputs, max_new_tokens=count, **options)[
        0, inputs["input_ids"].shape[1] :
    ].tolist()


def test_greedy_steps_equal_generate_token_by_token(tiny):
    model, tokenizer = tiny
    steps = list(decoding_steps(model, tokenizer, PROMPT, max_new_tokens=24))
    assert [step.token_id for step in steps] == generated(model, tokenizer)
    ids = tokenizer(PROMPT)["input_ids"]
    for step in steps:
        with torch.no_grad():  # all of it is read again
            wanted = model(torch.tensor([ids])).logits[0, -1].softmax(dim=-1)
        torch.testing.assert_close(step.probs, wanted, rtol=1e-4, atol=1e-6)
        assert step.token_id == step.probs.argmax()
        ids = [*ids, step.token_id]


def test_the_cache_is_used_and_nothing_stays_behind(tiny):
    model, tokenizer = tiny
    read = []
    handle = model.register_forward_pre_hook(
        lambda module, args, kwargs: read.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    hooks, config = count_hooks(model), model.generation_config.to_dict()
    try:
        steps = decoding_steps(model, tokenizer, PROMPT, max_new_tokens=9)
        assert read == []  # nothing is computed before it is asked for
        next(steps), next(steps), next(steps)
        assert torch.is_grad_enabled()
        steps.close()
    finally:
        handle.remove()
    assert read == [len(tokenizer(PROMPT)["input_ids"]), 1, 1]
    assert count_hooks(model) == hooks - 1
    assert model.generation_config.to_dict() == config and torch.is_grad_enabled()


def test_sampling_equals_generate_with_the_same_seed(tiny):
    model, tokenizer = tiny
    setting = {"temperature": 0.9, "top_k": 50, "top_p": 0.9, "min_p": 0.02}

    def choose(logits):
        return filter_logits(logits, **setting).softmax(dim=-1).multinomial(1)

    torch.manual_seed(3)
    steps = list(decoding_steps(model, tokenizer, PROMPT, max_new_tokens=12, choose=choose))
    torch.manual_seed(3)
    wanted = generated(model, tokenizer, count=12, do_sample=True, **setting)
    assert [step.token_id for step in steps] == wanted


@pytest.mark.parametrize("as_list", [True, False])
def test_an_end_token_ends_it_and_is_given(tiny, monkeypatch, as_list):
    model, tokenizer = tiny
    greedy = generated(model, tokenizer)
    end = greedy[4]
    monkeypatch.setattr(model.generation_config, "eos_token_id", [3, end] if as_list else end)
    steps = list(decoding_steps(model, tokenizer, PROMPT, max_new_tokens=24))
    assert [step.token_id for step in steps] == greedy[: greedy.index(end) + 1]
    monkeypatch.setattr(
        model.generation_config, "eos_token_id", None
    )  # a model without one goes on
    assert len(list(decoding_steps(model, tokenizer, PROMPT, max_new_tokens=24))) == 24


def test_it_stops_when_the_context_has_been_read(small_context):
    model, tokenizer = small_context
    model.generation_config.eos_token_id = None
    # 14 tokens are read, then the first and the second new one: the third is the last.
    assert len(list(decoding_steps(model, tokenizer, "!" * 14, max_new_tokens=50))) == 3
    assert len(list(decoding_steps(model, tokenizer, "!" * 16, max_new_tokens=50))) == 1


def test_the_text_starts_with_the_prompt_and_leaves_special_tokens_out(tiny):
    model, tokenizer = tiny
    wanted = iter([*tokenizer(" ball é", add_special_tokens=False)["input_ids"]])
    end = tokenizer.eos_token_id
    options = {"max_new_tokens": 50, "choose": lambda logits: next(wanted, end)}
    *_, last = decoding_steps(model, tokenizer, "  Hi there .", **options)
    assert last.text == "  Hi there . ball é" and last.token_id == end
    special = f"{tokenizer.eos_token} Hi"  # what the reader wrote stays
    (step,) = decoding_steps(model, tokenizer, special, max_new_tokens=1)
    assert step.text.startswith(special)


def test_a_model_without_a_cache_reads_all_again(tiny, monkeypatch):
    model, tokenizer = tiny
    wanted = generated(model, tokenizer, count=4)
    whole = model.forward

    def forward(input_ids, attention_mask=None):
        return whole(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)

    monkeypatch.setattr(model, "forward", forward)
    steps = list(decoding_steps(model, tokenizer, PROMPT, max_new_tokens=4))
    assert [step.token_id for step in steps] == wanted


# Numbers that are not finite


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_no_token_and_no_probability(tmp_path, bad):
    model, tokenizer = load_model(make_llama(tmp_path), device="cpu", dtype="float16")
    with torch.no_grad():
        model.lm_head.weight.fill_(bad)
    wrong = "not finite.*float16.*bfloat16"
    with pytest.raises(ValueError, match=f"the logits after 'The capital of' are {wrong}"):
        next(decoding_steps(model, tokenizer, "The capital of", max_new_tokens=3))
    probs = next_token_probs(model, tokenizer, PROMPT)[0]
    assert probs.isnan().all()
    with pytest.raises(ValueError, match=f"probs are {wrong}"):
        top_tokens(probs, tokenizer)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_filters_pass_on_what_is_not_finite(bad):
    logits = torch.randn(2, 8)
    logits[0, 3] = bad
    for setting in ({}, {"top_k": 2}, {"top_p": 0.5}, {"min_p": 0.1}):
        probs = filter_logits(logits, **setting).softmax(dim=-1)
        assert probs[0].isnan().all() and probs[1].isfinite().all()


def test_a_forbidden_token_is_no_error(tmp_path):
    model, tokenizer = load_model(make_llama(tmp_path), device="cpu")
    first = next_token_logits(model, tokenizer, PROMPT).argmax()
    hook = model.lm_head.register_forward_hook(
        lambda module, args, output: output.index_fill(-1, first, -math.inf)
    )
    (step,) = decoding_steps(model, tokenizer, PROMPT, max_new_tokens=1)
    hook.remove()
    assert step.token_id != first and step.probs[first] == 0
    assert len(top_tokens(step.probs, tokenizer)) == 5


def test_mistakes_are_told_before_the_first_step(tiny):
    model, tokenizer = tiny
    wrong = [
        ("", 3, "is empty"),
        ([PROMPT], 3, "must be one string"),
        (PROMPT, 0, "max_new_tokens"),
    ]
    for prompt, count, message in wrong:
        with pytest.raises(ValueError, match=message):
            decoding_steps(model, tokenizer, prompt, max_new_tokens=count)
    steps = decoding_steps(model, tokenizer, PROMPT, max_new_tokens=3, choose=lambda logits: 9999)
    with pytest.raises(ValueError, match="choose gave 9999: token ids here go from 0 to"):
        next(steps)
