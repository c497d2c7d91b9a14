"""What the doctor says of the shipped model and of the one that TUTORIAL_MODEL names."""

from __future__ import annotations

import importlib.util
import re
import shutil

import gpu
import huggingface_hub
import pytest
import torch
import transformers
from huggingface_hub import errors

from model_folders import BROKEN, copy_of
from project_file import ROOT
from tutorial_utils.decoding import next_token_logits
from tutorial_utils.doctor import model, report
from tutorial_utils.doctor.check import Check
from tutorial_utils.models import load, memory

MACHINE = {"Python", "torch", "numpy", "jupyterlab", "device", "memory"}
MACHINE |= {"disk for models", "widgets"}


def chosen(name: object, monkeypatch) -> dict[str, Check]:
    """The lines about a model that TUTORIAL_MODEL names, by what they are about."""
    monkeypatch.setenv("TUTORIAL_MODEL", str(name))
    return {check.what: check for check in model.chosen_model()}


def test_a_shipped_model_that_answers_something_else(monkeypatch):
    monkeypatch.setattr(model, "top_tokens", lambda *args: [(" the", 0.2)])
    [check] = model.shipped_model()
    assert check.state == "warning" and 'goes on with " the"' in check.found
    folder = re.search(r"`git checkout (\S+)`", check.todo)[1]
    assert (ROOT / folder / "model.safetensors").is_file()


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
        (40, 20, "problem", "the disk for models has less room"),
    ],
)
def test_whether_it_fits_before_it_is_downloaded(free, disk, state, found, monkeypatch):
    """Llama-3.1-8B, of which nothing but the configuration is ever asked for."""
    config = transformers.LlamaConfig(**gpu.SIZES["8b"])
    monkeypatch.setattr(huggingface_hub.HfApi, "auth_check", lambda self, name: None)
    monkeypatch.setattr(model, "read_config", lambda source, label, *, on_disk: config)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(memory, "free_memory", lambda device: free * 2**30)
    usage = shutil._ntuple_diskusage(0, 0, disk * 2**30)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    checks = chosen("meta-llama/Llama-3.1-8B", monkeypatch)
    assert checks["TUTORIAL_MODEL"].found.endswith("the first load downloads it")
    assert checks["does it fit"].state == state and found in checks["does it fit"].found
    assert bool(checks["does it fit"].todo) == (state == "problem")


# Whether it runs


def test_a_model_is_tried_out(llama, monkeypatch):
    line = chosen(llama, monkeypatch)["does it run"]
    assert line.state == "ok" and "two prompts in a batch and a step of `generate`" in line.found


def test_what_was_not_tried_is_said(llama, monkeypatch):
    monkeypatch.setattr(model, "load_model", None)  # would fail
    monkeypatch.setattr(model, "MOST_PARAMETERS", 1000)
    line = chosen(llama, monkeypatch)["does it run"]
    assert (line.state, line.found) == ("ok", "not tried: it has more than 1,000 parameters")


def test_a_model_whose_results_are_not_finite(llama, tmp_path, monkeypatch):
    folder = copy_of(llama, tmp_path / "x")
    BROKEN["NaN in the weights"](folder)
    line = chosen(folder, monkeypatch)["does it run"]
    assert line.state == "problem" and "float32: its files may be damaged" in line.found
    monkeypatch.setattr(load, "pick_dtype", lambda device: torch.float16)
    assert 'dtype="float32"' in chosen(folder, monkeypatch)["does it run"].found
    monkeypatch.setattr(load, "POCKET_LLAMA", folder)
    [line] = model.shipped_model()
    assert line.state == "problem" and "not finite" in line.found


def test_one_pass_with_scores_that_are_finite_and_a_generate_that_fails(llama, monkeypatch):
    def fail(self, **options):
        raise RuntimeError("no kernel image is available for execution on the device")

    monkeypatch.setattr(transformers.LlamaForCausalLM, "generate", fail)
    line = chosen(llama, monkeypatch)["does it run"]
    assert line.state == "problem" and "no kernel image" in line.found


def test_what_loading_warns_of(llama, tmp_path, monkeypatch):
    folder = copy_of(llama, tmp_path / "x", attn_implementation="flash_attention_2")
    line = chosen(folder, monkeypatch)["does it run"]
    assert line.state == "warning" and "flash_attention_2" in line.found


@pytest.mark.parametrize("name", BROKEN)
def test_no_folder_ends_the_doctor(name, llama, tmp_path, monkeypatch):
    """Every line is one of the report; and where it says that the series runs, it does."""
    folder = copy_of(llama, tmp_path / "x")
    BROKEN[name](folder)
    monkeypatch.setenv("TUTORIAL_MODEL", str(folder))
    monkeypatch.setattr(model, "shipped_model", lambda: iter(()))
    lines = [check for check in report.check_machine() if check.what not in MACHINE]
    assert all(line.todo for line in lines if line.state != "ok")
    assert "TUTORIAL_MODEL" in [line.what for line in lines]
    assert not [line for line in lines if "report it" in line.todo], lines
    if all(line.state != "problem" for line in lines):
        loaded, tokenizer = load.load_model()
        assert next_token_logits(loaded, tokenizer, ["Anna has", "Ben"]).isfinite().all()


@pytest.mark.parametrize(
    ("template", "state", "said"),
    [
        (None, "ok", "none, as in most base models"),
        ("{% for m in messages %}{{ m['content'] }}{% endfor %}", "ok", "adds no second BOS"),
        ("{{ bos_token }}{{ messages[0]['content'] }}", "warning", "adds a second BOS"),
        ("{{ raise_exception('system message first') }}", "warning", "system message first"),
        ({"tool_use": "x", "rag": "y"}, "warning", "refuses a single question"),
    ],
)
def test_the_chat_template(template, state, said, llama, tmp_path, monkeypatch):
    folder = copy_of(llama, tmp_path / "copy")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    check = chosen(folder, monkeypatch)["chat template"]
    assert check.state == state and said in check.found and bool(check.todo) == (state != "ok")


def test_whether_an_8b_model_fits_counts_the_bits(monkeypatch):
    monkeypatch.setattr(model, "pick_device", lambda: torch.device("cuda", 0))
    monkeypatch.setattr(memory, "free_memory", lambda device: 7 * 2**30)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    with model.init_empty_weights():
        empty = transformers.AutoModelForCausalLM.from_config(
            transformers.LlamaConfig(**gpu.SIZES["8b"])
        )
    assert "TUTORIAL_QUANTIZE=4bit" in model.fits(empty, "x", 0).todo
    monkeypatch.setenv("TUTORIAL_QUANTIZE", "4bit")
    check = model.fits(empty, "x", 0)
    assert check.state == "problem"  # float32 at both ends
    check = model.fits(empty.to(torch.float16), "x", 0)
    assert check.state == "ok" and "GiB in 4 bits" in check.found


def test_the_disk_has_to_hold_the_files_also_where_4_bits_need_less_memory(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda device: 40 * 2**30)
    monkeypatch.setattr(model, "free_disk", lambda: 10 * 2**30)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    monkeypatch.setenv("TUTORIAL_QUANTIZE", "4bit")
    config = transformers.LlamaConfig(**gpu.SIZES["8b"], **{model.DTYPE: torch.bfloat16})
    with model.init_empty_weights():
        empty = transformers.AutoModelForCausalLM.from_config(config)
    download = model.download_bytes(empty, config)
    assert download == 2 * 8_030_261_248
    check = model.fits(empty, "x", download)
    assert check.state == "problem" and "its files take 15.0 GiB" in check.found
    assert model.fits(empty, "x", 9 * 2**30).state == "ok"
