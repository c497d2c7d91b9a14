"""Text becomes token ids that this model can read, or is refused by its name."""

from __future__ import annotations

import copy

import accelerate
import pytest
import torch
from tokenizers import normalizers, processors
from transformers import ByT5Tokenizer

import architectures
from tiny_models import NumberTokenizer, make_gpt2, make_llama
from tutorial_utils import (
    candidate_layers,
    encode,
    load_model,
    mean_differences,
    next_token_logits,
    read_activations,
    sample_steered,
    unembed,
)
from tutorial_utils.activations.inputs import input_device
from tutorial_utils.encoding import context_length, text_ids

PROMPT = "Trump works at McDonald's. Trump works at"
PROMPTS = [PROMPT, "Hi", "The capital of France is"]


def state(tokenizer):
    sides = tokenizer.padding_side, tokenizer.truncation_side
    return *sides, dict(tokenizer.special_tokens_map), tokenizer.backend_tokenizer.to_str()


def test_a_string_is_a_batch_of_one(tiny):
    model, tokenizer = tiny
    inputs = encode(model, tokenizer, PROMPT)
    assert inputs["input_ids"].tolist() == [tokenizer(PROMPT)["input_ids"]]
    assert inputs["attention_mask"].tolist() == [[1] * inputs["input_ids"].shape[1]]
    assert inputs["input_ids"].device == model.device
    assert set(inputs) == {"input_ids", "attention_mask"}


def test_a_list_is_padded_on_the_left_and_the_tokenizer_stays_as_it_was(tiny):
    model, tokenizer = tiny
    before = state(tokenizer)
    inputs = encode(model, tokenizer, PROMPTS)
    for prompt, ids, mask in zip(
        PROMPTS, inputs["input_ids"], inputs["attention_mask"], strict=True
    ):
        wanted = tokenizer(prompt)["input_ids"]
        assert ids[-len(wanted) :].tolist() == wanted
        assert mask.tolist() == [0] * (len(ids) - len(wanted)) + [1] * len(wanted)
        assert set(ids[: -len(wanted)].tolist()) <= {tokenizer.eos_token_id}
    with pytest.raises(ValueError, match="prompt 1 is empty"):
        encode(model, tokenizer, [PROMPT, ""])
    assert state(tokenizer) == before


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ("", "the prompt is empty"),
        (["Hi", ""], "prompt 1 is empty"),
        ([], "there are no prompts"),
        (7, "a string or a list of strings, not 7"),
        (["Hi", None], "a string or a list of strings"),
        (["Hi", "word " * 600], r"prompt 1 is too long: it has \d+ tokens.* at most (256|512)"),
    ],
)
def test_prompts_that_cannot_be_read(tiny, prompts, message):
    with pytest.raises(ValueError, match=message):
        encode(*tiny, prompts)


def test_a_prompt_may_fill_the_context_and_no_more(tmp_path):
    model, tokenizer = load_model(make_gpt2(tmp_path, layers=1, context=16), device="cpu")
    text = "!" * 16  # one token each
    assert next_token_logits(model, tokenizer, text).shape[0] == 1
    with pytest.raises(ValueError, match="it has 17 tokens, and this model reads at most 16"):
        encode(model, tokenizer, text + "!")


# What tokenizers do


@pytest.fixture
def own(tmp_path):
    """A tiny Llama whose tokenizer may be changed."""
    return load_model(make_llama(tmp_path), device="cpu")


@pytest.mark.parametrize("template", ["<b> $A <e>", "$A <e>", "<b> $A <e> <e>", "$A"])
def test_an_end_token_put_after_a_text_is_left_out(own, template):
    model, tokenizer = own
    begin, end = tokenizer.bos_token, tokenizer.eos_token
    single = template.replace("<b>", begin).replace("<e>", end)
    named = [(begin, tokenizer.bos_token_id), (end, tokenizer.eos_token_id)]
    backend = tokenizer.backend_tokenizer
    backend.post_processor = processors.TemplateProcessing(single=single, special_tokens=named)
    bare = tokenizer(PROMPT, add_special_tokens=False)["input_ids"]
    wanted = [tokenizer.bos_token_id, *bare] if "<b>" in template else bare
    assert encode(model, tokenizer, PROMPT)["input_ids"].tolist() == [wanted]
    with torch.no_grad():
        logits = model(torch.tensor([wanted])).logits[:, -1]
    torch.testing.assert_close(next_token_logits(model, tokenizer, PROMPT), logits)
    written = encode(model, tokenizer, PROMPT + end)["input_ids"][0].tolist()
    assert written == [*wanted, tokenizer.eos_token_id]  # what the reader wrote stays


def test_an_end_token_of_a_tokenizer_written_in_python():
    assert ByT5Tokenizer()("Hi")["input_ids"] == [75, 108, 1]
    assert text_ids(ByT5Tokenizer(), ["Hi", "a"]) == [[75, 108], [100]]


def test_token_types_are_not_passed_on(own):
    model, tokenizer = own
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    assert "token_type_ids" in tokenizer(PROMPT)
    assert set(encode(model, tokenizer, PROMPTS)) == {"input_ids", "attention_mask"}


def test_padding_is_an_id_that_the_embedding_has(own):
    model, tokenizer = own
    wanted = next_token_logits(model, tokenizer, PROMPTS)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    assert tokenizer.pad_token_id >= model.config.vocab_size
    assert encode(model, tokenizer, PROMPTS)["input_ids"].max() < model.config.vocab_size
    torch.testing.assert_close(next_token_logits(model, tokenizer, PROMPTS), wanted)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "Hi [NEW]",
            r"prompt 1 has a token that this model does not know: '\[NEW\]' has the id 398",
        ),
        ("Hi \ud83d", r"prompt 1 holds half of a .*'\\ud83d' at index 3 .*remove this half"),
        ("\x07\x08", "prompt 1 gives no tokens, because the tokenizer drops all of its characters"),
    ],
)
def test_texts_that_the_model_cannot_read(own, text, told):
    model, tokenizer = own
    tokenizer.add_tokens(["[NEW]"])
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Replace(control, "") for control in "\x07\x08"]
    )
    for function in (encode, next_token_logits):
        with pytest.raises(ValueError, match=told):
            function(model, tokenizer, ["Hi", text])


# Models that read the padding


@pytest.mark.parametrize("kind", ["rwkv", "xlstm", "bart", "roberta", "recurrent_gemma", "bloom"])
def test_rows_are_what_each_prompt_gives_alone(kind):
    """test_architectures looks at every other type."""
    model, tokenizer = architectures.build(kind), NumberTokenizer()
    architectures.check_rows(model)
    prompts = ["5 9 17 30", "8 3 77 41 20 60 5 66 90"]
    if kind != "bloom":
        with pytest.raises(ValueError, match=r"reads padding as if it were text.* 4, 9 tokens"):
            encode(model, tokenizer, prompts)
    assert encode(model, tokenizer, [prompts[0], "1 2 3 4"])["input_ids"].shape == (2, 4)
    means = mean_differences(model, tokenizer, prompts, prompts[:1])
    for layer, got in means.items():
        one, other = (
            read_activations(model, encode(model, tokenizer, prompt)["input_ids"])[layer][0, 1:]
            for prompt in prompts
        )
        want = torch.cat([one, other]).mean(dim=0) - one.mean(dim=0)
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_steering_does_not_read_padding():
    model = architectures.build("rwkv")
    with pytest.raises(ValueError, match=r"reads padding as if it were text"):
        sample_steered(model, NumberTokenizer(), ["5 9 17", "8 3"], {}, 1)


def test_roberta_reads_fewer_tokens_than_it_has_positions():
    model = architectures.build("roberta")
    length = context_length(model)
    assert length == model.config.max_position_embeddings - model.config.pad_token_id - 1
    assert next_token_logits(model, NumberTokenizer(), "5 " * length).isfinite().all()
    with pytest.raises(ValueError, match="is too long"):
        encode(model, NumberTokenizer(), "5 " * (length + 1))


# Where the work is done


@pytest.fixture
def offloaded(tmp_path) -> tuple:
    """A tiny GPT-2, and the same one with all weights on disk."""
    whole, tokenizer = load_model(make_gpt2(tmp_path / "model"), device="cpu")
    parts = accelerate.disk_offload(copy.deepcopy(whole), tmp_path / "disk", torch.device("cpu"))
    assert parts.device.type == "meta"
    return whole, parts, tokenizer


def test_offloaded_models_are_given_what_they_read_where_they_run(offloaded):
    whole, parts, tokenizer = offloaded
    assert input_device(parts) == torch.device("cpu")
    wanted, got = (next_token_logits(model, tokenizer, PROMPTS) for model in (whole, parts))
    torch.testing.assert_close(got, wanted)
    hidden = torch.randn(2, 3, whole.config.hidden_size)
    torch.testing.assert_close(unembed(parts, hidden), unembed(whole, hidden))
    assert candidate_layers(parts) == candidate_layers(whole) == [1]  # tied: not layer 0
    wanted, got = (
        sample_steered(model, tokenizer, PROMPT, {1: hidden[0, 0]}, 1) for model in (whole, parts)
    )
    assert got.texts == wanted.texts
