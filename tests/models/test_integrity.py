"""Files that are not what their name says: the message names the file and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from model_folders import IN_PLACE_OF_A_FILE, POINTER, copy_of, refusal, shorten
from tutorial_utils.models.load import load_model


@pytest.mark.parametrize(
    "file",
    [
        "config.json",
        "generation_config.json",
        "tokenizer_config.json",
        "tokenizer.json",
        "model.safetensors",
    ],
)
def test_a_file_that_is_not_what_its_name_says(file, llama, tmp_path):
    for number, (content, what, todo) in enumerate(IN_PLACE_OF_A_FILE):
        folder = copy_of(llama, tmp_path / str(number))
        (folder / file).write_bytes(content)
        text = refusal(OSError, folder)
        assert f"{file} {what}" in text and todo in text, text


@pytest.mark.parametrize("share", [0.001, 0.5, 0.99])
@pytest.mark.parametrize("file", ["tokenizer.json", "model-00002-of-00003.safetensors"])
def test_a_file_that_was_cut_short(file, share, llama, tmp_path):
    folder = in_shards(llama, tmp_path / "x")
    load_model(folder)
    shorten(folder / file, share)
    text = refusal(OSError, folder)
    assert file in text and "cut short" in text and "hf download" in text


def in_shards(folder: Path, target: Path) -> Path:
    """A copy whose weights are in several files."""
    copy_of(folder, target, without="model.safetensors")
    model = AutoModelForCausalLM.from_pretrained(folder)
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    model.save_pretrained(target, max_shard_size=size // 2)
    assert len(list(target.glob("model-*.safetensors"))) == 3
    return target


def test_weights_in_several_files(llama, tmp_path):
    folder = in_shards(llama, tmp_path / "x")
    index = folder / "model.safetensors.index.json"
    good = index.read_text()
    for content in ("{}", '{"weight_map": []}', '{"weight_map": {"a": [5]}}', POINTER, ""):
        index.write_text(content)
        assert f"{index.name} is" in refusal(OSError, folder)
    index.write_text(good)
    (folder / "model-00003-of-00003.safetensors").unlink()
    assert "model-00003-of-00003.safetensors is not there" in refusal(OSError, folder)
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").symlink_to("blobs/gone")
    assert "tokenizer.json is not there" in refusal(OSError, folder)
