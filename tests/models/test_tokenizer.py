"""Tokenizers: what is loaded does what its file says, and the file's format has its reader."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from model_folders import copy_of, refusal
from tutorial_utils.models import tokenizer as module
from tutorial_utils.models.load import load_model

TEXT = "The capital of France is  Cafe\u0301 Paris, isn't it?"


def with_tokenizer(
    folder: Path, target: Path, change=lambda file: None, **settings: object
) -> Path:
    """A copy with another tokenizer.json and other settings beside it."""
    copy_of(folder, target)
    file = Tokenizer.from_file(str(target / "tokenizer.json"))
    change(file)
    file.save(str(target / "tokenizer.json"))
    path = target / "tokenizer_config.json"
    kept = {name: value for name, value in json.loads(path.read_text()).items() if value}
    kept.pop("backend", None)
    path.write_text(json.dumps({**kept, **settings}))
    return target


def with_nfc(file: Tokenizer) -> None:
    file.normalizer = normalizers.NFC()


def without_bos(file: Tokenizer) -> None:
    file.post_processor = processors.ByteLevel(trim_offsets=False)


def same_as_file(folder: Path) -> bool:
    _, tokenizer = load_model(folder, device="cpu")
    file = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = tokenizer(TEXT)["input_ids"]
    text = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    return ids == file.encode(TEXT).ids and text == file.decode(ids, skip_special_tokens=False)


@pytest.mark.parametrize("change", [with_nfc, without_bos, lambda file: None])
@pytest.mark.parametrize(
    "name",
    [
        "PreTrainedTokenizerFast",
        "TokenizersBackend",  # what transformers 5 writes
        "LlamaTokenizerFast",
        "LlamaTokenizer",
        "GPT2Tokenizer",
        "GPT2TokenizerFast",
        "GPTNeoXTokenizerFast",
        "Qwen2Tokenizer",
        "CodeLlamaTokenizerFast",
        "GemmaTokenizerFast",
        "CohereTokenizerFast",
        "BloomTokenizerFast",
    ],
)
def test_every_class_gives_what_the_file_says(name, change, llama, tmp_path):
    assert same_as_file(with_tokenizer(llama, tmp_path / "x", change, tokenizer_class=name))


def metaspace(file: Tokenizer) -> None:
    """What a class for SentencePiece's vocabularies does: the spaces are gone."""
    file.pre_tokenizer = pre_tokenizers.Metaspace()
    file.decoder = decoders.Metaspace()


def no_normalizer(file: Tokenizer) -> None:
    file.normalizer = normalizers.Lowercase()


def other_decoder(file: Tokenizer) -> None:
    file.decoder = decoders.Metaspace()


WRONG = [metaspace, no_normalizer, without_bos, other_decoder]


def load_wrongly(change, kind, monkeypatch) -> None:
    """Make transformers load a tokenizer that differs from its file."""
    right = kind.from_pretrained

    def from_pretrained(*args, **options):
        tokenizer = right(*args, **options)
        change(tokenizer.backend_tokenizer)
        return tokenizer

    monkeypatch.setattr(kind, "from_pretrained", from_pretrained)


@pytest.mark.parametrize("change", WRONG)
def test_a_class_that_does_something_else_is_put_right(change, llama, monkeypatch):
    load_wrongly(change, AutoTokenizer, monkeypatch)
    assert same_as_file(llama)


@pytest.mark.parametrize("change", WRONG)
def test_what_cannot_be_put_right_is_refused(change, llama, monkeypatch):
    load_wrongly(change, AutoTokenizer, monkeypatch)
    load_wrongly(change, PreTrainedTokenizerFast, monkeypatch)
    text = refusal(OSError, llama)
    assert "gives other tokens than its tokenizer.json" in text
    assert "tokenizer of the folder" in text and "pip install -U transformers" in text


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("eos", [True, False])
def test_settings_may_add_special_tokens(bos, eos, llama, tmp_path):
    """add_bos_token and add_eos_token, where a class of this version follows them."""
    folder = with_tokenizer(
        llama,
        tmp_path / "x",
        without_bos,
        tokenizer_class="LlamaTokenizerFast",
        add_bos_token=bos,
        add_eos_token=eos,
    )
    _, tokenizer = load_model(folder)
    file = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = file.encode(TEXT).ids
    assert tokenizer(TEXT)["input_ids"] in (ids, [0] * bos + ids + [1] * eos)


def test_truncation_and_padding_in_the_file_are_no_obstacle(llama, tmp_path):
    def change(file):
        file.enable_truncation(4)
        file.enable_padding(length=64)
        file.add_special_tokens([AddedToken("<|more|>")])

    _, tokenizer = load_model(with_tokenizer(llama, tmp_path / "x", change))
    assert len(tokenizer(TEXT)["input_ids"]) > 4


def test_a_vocabulary_that_lacks_characters(llama, tmp_path):
    """Nothing to compare where the file itself can't encode the text."""
    folder = copy_of(llama, tmp_path / "x")
    words = {"model": {"type": "WordLevel", "vocab": {"Anna": 0, "Ben": 1}, "unk_token": "gone"}}
    words |= {"pre_tokenizer": {"type": "Whitespace"}, "added_tokens": []}
    (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0", **words}))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"})
    )
    assert load_model(folder)[1]("Anna Ben")["input_ids"] == [0, 1]


@pytest.mark.parametrize(
    ("content", "package"),
    [
        (b"\n\x0e\n\x05<unk>\x15\0\0\0\0\x18\x02", "sentencepiece protobuf"),
        (b"IQ== 0\n", "tiktoken"),
    ],
)
def test_a_file_that_needs_another_package(content, package, llama, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "is_sentencepiece_available", lambda: False)
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", None)  # fails, as without the package
    folder = copy_of(llama, tmp_path / "x", without="tokenizer*")
    (folder / "tokenizer.model").write_bytes(content)
    text = refusal(OSError, folder)
    assert f"tokenizer.model needs another package: `pip install {package}`" in text
    shutil.copy(llama / "tokenizer.json", folder)  # then it is not read at all
    assert "pip install" not in refusal(OSError, folder)
