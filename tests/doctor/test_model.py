"""What the doctor says of the shipped model and of the one that TUTORIAL_MODEL names."""

from __future__ import annotations

import shutil

import huggingface_hub
import pytest
import torch
import transformers
from huggingface_hub import errors

from tutorial_utils.doctor import model
from tutorial_utils.doctor.check import Check
from tutorial_utils.models import memory

LLAMA = {
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "tie_word_embeddings": False,
}


def chosen(name: object, monkeypatch) -> dict[str, Check]:
    """The lines about a model that TUTORIAL_MODEL names, by what they are about."""
    monkeypatch.setenv("TUTORIAL_MODEL", str(name))
    return {check.what: check for check in model.chosen_model()}


def test_a_shipped_model_that_answers_something_else(monkeypatch):
    monkeypatch.setattr(model, "top_tokens", lambda *args: [(" the", 0.2)])
    [check] = model.shipped_model()
    assert check.state == "warning" and 'goes on with " the"' in check.found


def test_the_series_on_another_model(llama, tmp_path, monkeypatch):
    lines = chosen(llama, monkeypatch)
    assert lines["TUTORIAL_MODEL"] == ("TUTORIAL_MODEL", "ok", f"{llama}, on this machine", "")
    assert lines["does it fit"].state == "ok" and "parameters" in lines["does it fit"].found
    for bad in (tmp_path, "not a/name", "some/model"):  # the tests have no network
        [check] = chosen(bad, monkeypatch).values()
        assert check.state == "problem" and "unset TUTORIAL_MODEL" in check.todo


def refusal(kind):
    """An error of the hub as its library raises it, without an answer of the hub."""
    error = kind.__new__(kind)
    Exception.__init__(error, "no")
    return error


@pytest.mark.parametrize(
    ("error", "found", "todo"),
    [
        (errors.GatedRepoError, "is gated", "ask for access at https://huggingface.co/some/model"),
        (
            errors.RepositoryNotFoundError,
            "nor a name that huggingface.co knows",
            "unset TUTORIAL_MODEL",
        ),
        (errors.HfHubHTTPError, "could not be fetched", "`hf auth login`"),
    ],
)
def test_access_that_is_not_granted(error, found, todo, monkeypatch):
    def refuse(self, name):
        raise refusal(error)

    monkeypatch.setattr(huggingface_hub.HfApi, "auth_check", refuse)
    [check] = chosen("some/model", monkeypatch).values()
    assert check.state == "problem" and found in check.found and todo in check.todo


@pytest.mark.parametrize(
    ("free", "disk", "state", "found"),
    [
        (40, 100, "ok", "8,030,261,248 parameters, 29.9 GiB in float32; it fits on cpu"),
        (20, 100, "problem", "there is not enough memory"),
        (40, 20, "problem", "the disk for models has less"),
    ],
)
def test_whether_it_fits_before_it_is_downloaded(free, disk, state, found, monkeypatch):
    """Llama-3.1-8B, of which nothing but the configuration is ever asked for."""
    config = transformers.LlamaConfig(**LLAMA)
    monkeypatch.setattr(huggingface_hub.HfApi, "auth_check", lambda self, name: None)
    monkeypatch.setattr(model, "read_config", lambda source, label, *, here: config)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(memory, "free_memory", lambda device: free * 2**30)
    usage = shutil._ntuple_diskusage(0, 0, disk * 2**30)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    checks = chosen("meta-llama/Llama-3.1-8B", monkeypatch)
    assert checks["TUTORIAL_MODEL"].found.endswith("downloaded when it is first loaded")
    assert checks["does it fit"].state == state and found in checks["does it fit"].found
    assert bool(checks["does it fit"].todo) == (state == "problem")
