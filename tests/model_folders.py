"""Folders of models as people have them: copies of a whole one with something missing or wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from math import nan
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tutorial_utils.models.load import load_model


def copy_of(folder: Path, target: Path, *, without: str = "", **config: object) -> Path:
    """A copy of a model's folder, without some of its files and with another configuration."""
    shutil.copytree(folder, target)
    for file in target.glob(without) if without else ():
        file.unlink()
    if config:
        settings = json.loads((target / "config.json").read_text())
        (target / "config.json").write_text(json.dumps({**settings, **config}))
    return target


def refusal(error: type[Exception], name: object, **options: object) -> str:
    with pytest.raises(error) as caught:
        load_model(name, **options)
    assert type(caught.value) is error  # not one of its kinds from a library
    return str(caught.value)


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 268435456\n"
WEB_PAGE = "<!DOCTYPE html><html><title>403</title></html>" * 20
# What may be in a file's place, and what has to be said of it.
IN_PLACE_OF_A_FILE = [
    (POINTER.encode(), "is a Git LFS pointer", "git lfs pull"),
    (b"", "is empty", "hf download"),
    (bytes(4096), "is empty", "hf download"),
    (WEB_PAGE.encode(), "is a web page", "hf download"),
    (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "is a web page", ""),
    (b"PK\3\4 an archive", "is not", "hf download"),
    (b'\x40\0\0\0\0\0\0\0{"w": {"dtype"', "is not", "cut short"),
    ('{"model_type": "llama", "'.encode("utf-16"), "is not", "hf download"),
    (b"[]", "is not", "hf download"),
]


def shorten(file: Path, share: float) -> None:
    """Cut a file short, as a download that broke off does."""
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])


def write_into(file: Path, **settings: object) -> None:
    """Change settings of a JSON file; None takes one out."""
    changed = {**json.loads(file.read_text()), **settings}
    kept = {name: value for name, value in changed.items() if value is not None}
    file.write_text(json.dumps(kept))


def with_weights(folder: Path, change: Callable[[dict], object]) -> None:
    """Change the weights in a folder."""
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


EMBEDDINGS = ("embed_tokens.weight", "lm_head.weight")
TWO_TEMPLATES = [{"name": "tool_use", "template": "x"}, {"name": "rag", "template": "y"}]
# Folders that can't be used, or only in part: what makes one of a copy of a whole one.
BROKEN: dict[str, Callable[[Path], object]] = {
    f"{file}: {what}": lambda d, file=file, content=content: (d / file).write_bytes(content)
    for file in ("config.json", "generation_config.json", "tokenizer.json", "model.safetensors")
    for content, what, _ in IN_PLACE_OF_A_FILE
} | {
    "no files": lambda d: [file.unlink() for file in d.iterdir()],
    "no folder": shutil.rmtree,
    "a folder in place of a file": lambda d: [
        (d / "config.json").unlink(),
        (d / "config.json").mkdir(),
    ],
    "an adapter alone": lambda d: [
        (d / "model.safetensors").rename(d / "adapter_model.safetensors"),
        (d / "adapter_config.json").write_text("{}"),
    ],
    "an index of nothing": lambda d: (d / "model.safetensors.index.json").write_text("{}"),
    "no tokenizer": lambda d: [file.unlink() for file in d.glob("tokenizer*")],
    "NaN in the weights": lambda d: with_weights(d, lambda w: w["lm_head.weight"].fill_(nan)),
    "weights that are missing": lambda d: with_weights(d, lambda w: w.pop("lm_head.weight")),
    "ids outside the embedding": lambda d: (
        with_weights(
            d,
            lambda w: w.update({n: w[n][:9].clone() for n in w if n.endswith(EMBEDDINGS)}),
        ),
        write_into(d / "config.json", vocab_size=9),
    ),
}
SETTINGS = {
    "config.json": [
        {"model_type": None},
        {"model_type": ["llama"]},
        {"model_type": "strange"},
        {"model_type": "bert"},
        {"model_type": "t5"},
        {"model_type": "gemma3"},
        {"auto_map": 5, "model_type": "strange"},
        {"hidden_size": "large"},
        {"hidden_size": 0},
        {"hidden_size": 64},
        {"num_attention_heads": 3},
        {"num_hidden_layers": -1},
        {"vocab_size": None},
        {"vocab_size": 10**7},
        {"hidden_act": "unheard-of"},
        {"rope_parameters": {"rope_type": "unheard-of"}},
        {"quantization_config": {"quant_method": "unheard-of"}},
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
        {"transformers_version": "99.0.0", "new_key": 3},
        {"max_position_embeddings": 2},
    ],
    "tokenizer_config.json": [
        {"chat_template": "{{ raise_exception('system message first') }}"},
        {"chat_template": TWO_TEMPLATES},
        {"chat_template": "{% endfor %}"},
        {"tokenizer_class": "UnheardOf"},
        {"tokenizer_class": 5},
        {"tokenizer_class": "BertTokenizer"},
        {"tokenizer_class": "T5Tokenizer"},
        {"model_input_names": 5},
        {"auto_map": {"AutoTokenizer": ["code.Tokenizer", None]}, "tokenizer_class": "Own"},
        {"extra_special_tokens": ["<a>"]},
        {"bos_token": 5},
        {"eos_token": "<not in the vocabulary>"},
        {"model_max_length": "long"},
    ],
    "generation_config.json": [
        {"eos_token_id": "x"},
        {"eos_token_id": []},
        {"eos_token_id": [[1]]},
        {"pad_token_id": -5},
        {"cache_implementation": "unheard-of"},
        {"num_beams": 4, "num_return_sequences": 4},
    ],
}
BROKEN |= {
    f"{file}: {wrong}": lambda d, file=file, wrong=wrong: write_into(d / file, **wrong)
    for file, settings in SETTINGS.items()
    for wrong in settings
}
