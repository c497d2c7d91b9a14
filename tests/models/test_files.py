"""Folders and names on the hub: what is said where a model is not there or not whole."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from transformers import AutoModelForCausalLM

from fake_hub import COMMIT, fake_hub, load_from
from model_folders import POINTER, copy_of, refusal
from tutorial_utils.models import files, load
from tutorial_utils.models.load import load_model


def test_a_folder_that_is_not_there(tmp_path):
    for name in (tmp_path / "gone", str(tmp_path / "gone"), "./gone", "~/gone", Path("gone")):
        text = refusal(OSError, name)
        assert "gone' does not exist" in text and 'load_model("pocket-llama")' in text


def test_a_file_in_place_of_a_folder(llama):
    assert "is a file, not a folder" in refusal(OSError, llama / "model.safetensors")


@pytest.mark.parametrize(
    ("without", "missing"),
    [("*", "no configuration (config.json)"), ("*.safetensors", "no weights (*.safetensors)")],
)
def test_a_folder_without_a_model(llama, tmp_path, without, missing):
    text = refusal(OSError, copy_of(llama, tmp_path / "x", without=without))
    assert "holds no whole model" in text and missing in text


@pytest.mark.parametrize("make", ["llama", "gpt2"])
def test_a_folder_without_a_tokenizer(make, tmp_path, request):
    folder = copy_of(request.getfixturevalue(make), tmp_path / "x", without="tokenizer*")
    assert "it has no tokenizer (tokenizer.json or" in refusal(OSError, folder)


def test_the_message_says_that_the_name_comes_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("TUTORIAL_MODEL", str(tmp_path))
    assert "environment variable TUTORIAL_MODEL" in refusal(OSError, None)


def test_a_shipped_model_that_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(load, "POCKET_LLAMA", tmp_path / "pocket_llama")
    text = refusal(OSError, None)
    assert "comes with this series" in text and "make pocket-llama" in text


def with_adapter(folder: Path, target: Path, **options: str) -> Path:
    """A copy into which peft wrote an adapter."""
    peft = pytest.importorskip("peft")
    copy_of(folder, target, **options)
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(folder), config)
    model.save_pretrained(target)
    return target


def test_an_adapter_beside_whole_weights_is_left_alone(llama, tmp_path):
    folder = with_adapter(llama, tmp_path / "merged")
    if files.ALWAYS_LOADS_ADAPTER:
        assert "Move that file elsewhere" in refusal(OSError, folder)
        return
    loaded, expected = load_model(folder)[0].state_dict(), load_model(llama)[0].state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)


@pytest.mark.parametrize("without", ["*", "model*"])
def test_an_adapter_alone(without, llama, tmp_path):
    folder = with_adapter(llama, tmp_path / "x", without=without)
    text = refusal(OSError, folder)
    assert "holds an adapter and no whole model" in text and "merge_and_unload()" in text
    peft = pytest.importorskip("peft")  # what the message tells to do works
    merged = peft.AutoPeftModelForCausalLM.from_pretrained(folder).merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    for file in llama.glob("tokenizer*"):
        shutil.copy(file, tmp_path / "merged")
    assert type(load_model(tmp_path / "merged")[0]).__name__ == "LlamaForCausalLM"


def test_a_configuration_that_does_not_fit_the_weights(llama, tmp_path):
    text = refusal(OSError, copy_of(llama, tmp_path / "x", hidden_size=64, head_dim=16))
    assert "no weights of the shape in config.json for lm_head.weight, " in text
    assert re.search(r" \(and \d+ more\)\. Take a model with .*, or download it again\.", text)


def test_weights_without_a_head_are_not_filled_in_with_random_ones(llama, tmp_path):
    folder = copy_of(llama, tmp_path / "x")
    model = AutoModelForCausalLM.from_pretrained(llama).model
    model.save_pretrained(folder)
    text = refusal(OSError, folder)
    assert "not a whole language model" in text and "lm_head.weight. Take a model with" in text


def test_what_is_said_about_names_on_the_hub(gpt2, tmp_path):
    """Against a stand-in for the hub, then with the network off and what the cache holds."""
    unfit = copy_of(gpt2, tmp_path / "pickled", without="*.safetensors")
    (unfit / "pytorch_model.bin").write_bytes(b"")
    gguf = copy_of(gpt2, tmp_path / "gguf", without="*")
    (gguf / "model.gguf").write_bytes(b"")
    served = {
        "some/tiny": gpt2,
        "some/pickled": unfit,
        "some/gguf": gguf,
        "some/pointer": copy_of(gpt2, tmp_path / "pointer"),
        "some/silent": copy_of(gpt2, tmp_path / "silent", without="tokenizer*"),
        "some/code": copy_of(
            gpt2, tmp_path / "code", model_type="strange", auto_map={"AutoConfig": "code.C"}
        ),
    }
    (tmp_path / "pointer" / "model.safetensors").write_text(POINTER)
    refused = {
        "some/gated": (403, "GatedRepo", "Your request is awaiting a review"),
        "some/token": (401, "", "Invalid credentials in Authorization header"),
    }
    names = [*served, *refused, "some/nothing", "not a name"]
    cache = tmp_path / "cache"
    with fake_hub(served, refused) as address:
        # TQDM_POSITION=-1: bars although stderr is no terminal, as in a notebook
        said, stderr = load_from(address, cache, names, TQDM_POSITION="-1")
    assert said["some/tiny"] == ["GPT2LMHeadModel", "False"]
    assert "model.safetensors" in stderr  # the download's bar
    for name, kind, words in (
        ("some/gated", "OSError", "https://huggingface.co/some/gated"),
        ("some/gated", "OSError", "`hf auth login`"),
        ("some/gated", "OSError", "Qwen/Qwen3-0.6B"),
        ("some/nothing", "OSError", "'some/nothing' is neither an existing folder nor a name"),
        ("not a name", "OSError", "'not a name' is neither an existing folder nor a name"),
        ("some/token", "OSError", "about your access token, log in again"),
        ("some/pickled", "OSError", "no weights in safetensors format"),
        ("some/gguf", "OSError", "no config.json"),
        ("some/silent", "OSError", "tokenizer of 'some/silent' could not be loaded: "),
        ("some/pointer", "OSError", "model.safetensors is a Git LFS pointer"),
        ("some/code", "ValueError", "trust_remote_code=False"),
    ):
        assert said[name][0] == kind and words in said[name][1], said[name]

    whole = cache / "hub" / "models--some--tiny"
    partial = cache / "hub" / "models--some--partial"
    shutil.copytree(whole, partial, symlinks=True)
    for file in partial.glob("snapshots/*/model.safetensors"):
        file.unlink()
    # The hub is gone, nobody said "offline", and each answer comes without minutes of new tries.
    said, _ = load_from(address, cache, ["some/tiny", "some/partial", "some/other"])
    assert said["some/tiny"] == ["GPT2LMHeadModel", "False"]
    for name in ("some/partial", "some/other"):
        kind, text = said[name]
        assert kind == "OSError" and "missing or incomplete in the cache" in text, text
        assert str(cache) in text and "huggingface.co can't be reached." in text, text


@pytest.mark.parametrize("files", [[], ["config.json", "tokenizer.json"]])
def test_what_is_said_offline(files, gpt2, tmp_path, monkeypatch):
    snapshot = tmp_path / "models--some--model" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for file in files:
        shutil.copy(gpt2 / file, snapshot)
    refs = tmp_path / "models--some--model" / "refs"
    refs.mkdir()
    (refs / "main").write_text(COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    text = refusal(OSError, "some/model")
    assert "can't be reached (HF_HUB_OFFLINE is set)" in text and str(tmp_path) in text
