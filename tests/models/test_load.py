"""Loading a model: which one, on which device, in what numbers; and what comes back."""

from __future__ import annotations

import json
import logging
import shutil
import warnings

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from model_folders import copy_of, refusal, write_into
from tutorial_utils.models import load
from tutorial_utils.models.load import load_model, pick_device, pick_dtype


@pytest.mark.parametrize("make", ["llama", "gpt2"])
def test_a_folder_gives_a_model_ready_to_read_and_its_tokenizer(make, request):
    folder = request.getfixturevalue(make)
    model, tokenizer = load_model(folder, device="cpu")
    assert not model.training and not any(m.training for m in model.modules())
    assert model.dtype == torch.float32 and model.device == torch.device("cpu")
    assert model.config.name_or_path == str(folder)
    expected = AutoModelForCausalLM.from_pretrained(folder)
    ids = tokenizer("Trump works at", return_tensors="pt").input_ids
    assert torch.equal(model(ids).logits, expected(ids).logits)
    assert (ids[0, 0] == tokenizer.bos_token_id) == (make == "llama")


@pytest.mark.parametrize("dtype", ["bfloat16", torch.bfloat16, "torch.bfloat16"])
def test_dtype_and_device_are_texts_or_torch_objects(llama, dtype):
    model, _ = load_model(str(llama), device=torch.device("cpu"), dtype=dtype)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_the_cpu_may_have_a_number(llama):
    """As accelerate names it to one of several processes."""
    model, _ = load_model(llama, device=torch.device("cpu", 0))
    assert {p.device for p in model.parameters()} == {torch.device("cpu")}


def test_the_name_comes_from_the_argument_then_the_environment_then_the_shipped_model(
    llama, gpt2, monkeypatch
):
    monkeypatch.setattr(load, "POCKET_LLAMA", llama)
    assert load_model()[0].config.model_type == "llama"
    monkeypatch.setenv("TUTORIAL_MODEL", "")
    assert load_model()[0].config.model_type == "llama"
    monkeypatch.setenv("TUTORIAL_MODEL", str(gpt2))
    assert load_model()[0].config.model_type == "gpt2"
    assert load_model("pocket-llama")[0].config.model_type == "llama"
    assert load_model(llama)[0].config.model_type == "llama"


def test_a_tilde_is_the_home_folder(llama, monkeypatch):
    monkeypatch.setenv("HOME", str(llama.parent))
    assert load_model(f"~/{llama.name}")[0].config.model_type == "llama"


def test_loading_leaves_torchs_random_numbers_alone(llama):
    before = torch.get_rng_state()
    load_model(llama)
    assert torch.equal(before, torch.get_rng_state())


def test_a_folder_is_loaded_and_read_from_without_a_word(
    llama, gpt2, tmp_path, capfd, caplog, recwarn
):
    rope = {"rope_type": "linear", "factor": 1.0}  # keys of the time before transformers 5
    old = {"dtype": None, "torch_dtype": "float32", "rope_theta": 5e5, "rope_scaling": rope}
    older = copy_of(llama, tmp_path / "old", **old, transformers_version="4.43.0")
    transformers_logging.enable_propagation()
    logging.Logger.warning_once.cache_clear()
    try:
        for folder in (llama, gpt2, older):
            model, tokenizer = load_model(folder)
            inputs = tokenizer("Trump works at", return_tensors="pt")
            model.generate(**inputs, max_new_tokens=2)
            model.generate(**inputs, max_new_tokens=2, do_sample=True, temperature=0.7)
            model.generate(**inputs, max_new_tokens=2, num_beams=2)
    finally:
        transformers_logging.disable_propagation()
    assert "".join(capfd.readouterr()) == ""
    assert [r.message for r in caplog.records if r.levelno >= logging.WARNING] == []
    assert [str(w.message) for w in recwarn if "transformers" in w.filename] == []


@pytest.mark.parametrize("shown", [True, False])
def test_the_users_own_choice_of_progress_bars_stays(llama, tmp_path, shown):
    before = transformers_logging.is_progress_bar_enabled()
    (
        transformers_logging.enable_progress_bar
        if shown
        else transformers_logging.disable_progress_bar
    )()
    try:
        load_model(llama)
        assert transformers_logging.is_progress_bar_enabled() == shown
        refusal(OSError, copy_of(llama, tmp_path / "x", without="tokenizer*"))
        assert transformers_logging.is_progress_bar_enabled() == shown
    finally:
        if before:
            transformers_logging.enable_progress_bar()


def test_generate_does_what_it_is_asked_and_no_more(llama, tmp_path):
    """Sampling settings of a chat model would make lessons differ from what they derive."""
    folder = copy_of(llama, tmp_path / "chat")
    brought = {
        "do_sample": True,
        "temperature": 0.6,
        "top_p": 0.9,
        "repetition_penalty": 1.3,
        "bos_token_id": 0,
        "eos_token_id": [1, 7],
    }
    (folder / "generation_config.json").write_text(json.dumps(brought))
    model, tokenizer = load_model(folder)
    assert model.generation_config.eos_token_id == [1, 7]
    assert model.generation_config.pad_token_id == 1
    write_into(folder / "generation_config.json", eos_token_id=[])
    assert load_model(folder)[0].generation_config.eos_token_id is None
    ids = tokenizer("Trump works at", return_tensors="pt").input_ids
    greedy = ids
    for _ in range(5):
        greedy = torch.cat([greedy, model(greedy).logits[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(model.generate(ids, max_new_tokens=5), greedy)


def test_device_is_cuda_then_mps_then_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device() == torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device() == torch.device("mps", 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert pick_device() == torch.device("cpu")


@pytest.mark.parametrize(
    ("device", "capability", "dtype"),
    [
        ("cuda", (9, 0), torch.bfloat16),
        ("cuda:0", (8, 0), torch.bfloat16),
        ("cuda", (7, 5), torch.float16),
        ("mps", None, torch.float16),
        ("cpu", None, torch.float32),
    ],
)
def test_dtype_is_what_the_device_computes_in(device, capability, dtype, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert pick_dtype(device) == pick_dtype(torch.device(device)) == dtype


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "meta", 0, "", ["cpu"]])
def test_a_bad_device_is_named_with_what_is_allowed(llama, device):
    text = refusal(ValueError, llama, device=device)
    assert repr(device) in text and "'cuda', 'cuda:1', 'mps', 'cpu' or None" in text


def test_a_device_that_is_not_there(llama, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "no device 'cuda': torch" in refusal(ValueError, llama, device="cuda")
    assert "finds 0 of type 'cuda'" in refusal(ValueError, llama, device=torch.device("cuda:1"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert "finds 2 of type 'cuda'" in refusal(ValueError, llama, device="cuda:2")


@pytest.mark.parametrize("dtype", ["int8", torch.int8, torch.float64, "half", 16, ""])
def test_a_bad_dtype_is_named_with_what_is_allowed(llama, dtype):
    text = refusal(ValueError, llama, dtype=dtype)
    assert repr(dtype) in text and "float32, bfloat16, float16 or None" in text


@pytest.mark.parametrize("name", ["", "  ", 7, ["gpt2"], b"gpt2"])
def test_a_bad_name(name):
    assert repr(name) in refusal(ValueError, name)


def test_the_tokenizer_gives_what_the_model_takes_and_no_more(llama, tmp_path):
    """Token types are refused by `generate` where the model takes none."""
    folder = shutil.copytree(llama, tmp_path / "types")
    file = folder / "tokenizer_config.json"
    names = ["input_ids", "token_type_ids", "attention_mask"]
    file.write_text(json.dumps({**json.loads(file.read_text()), "model_input_names": names}))
    assert "token_type_ids" in AutoTokenizer.from_pretrained(folder)("Anna")
    _, tokenizer = load_model(folder, device="cpu")
    assert set(tokenizer("Anna")) == {"input_ids", "attention_mask"}


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_a_model_made_in_bfloat16_is_not_read_in_float16_without_a_word(key, llama, tmp_path):
    """float16 ends at 65504: its stream overflows there, and every answer is NaN."""
    folder = copy_of(llama, tmp_path / "x", dtype=None, torch_dtype=None)
    copy_of(folder, tmp_path / "y", **{key: "bfloat16"})
    with pytest.warns(UserWarning, match=r'made in bfloat16 .* dtype="float32" is safe'):
        load_model(tmp_path / "y", dtype="float16")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        load_model(tmp_path / "y", dtype="bfloat16")
        load_model(tmp_path / "y")
        load_model(folder, dtype="float16")
