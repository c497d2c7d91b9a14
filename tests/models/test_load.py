"""Loading a model: which one, where it goes, and what is said when it can't be loaded."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from accelerate import init_empty_weights
from huggingface_hub import constants
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BertModel,
    CLIPConfig,
    T5Config,
)
from transformers.utils import logging as transformers_logging

import tiny_models
from fake_hub import COMMIT, fake_hub, load_from, python_path
from tutorial_utils.models import errors as load_errors
from tutorial_utils.models import load as models
from tutorial_utils.models import memory
from tutorial_utils.models.load import load_model, pick_device, pick_dtype
from tutorial_utils.models.memory import free_memory

GIB = 2**30


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Path:
    return tiny_models.make_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory) -> Path:
    return tiny_models.make_gpt2(tmp_path_factory.mktemp("gpt2"))


def copy_of(folder: Path, target: Path, *, without: str = "", **config: object) -> Path:
    """A copy of a model's folder, without some of its files and with another configuration."""
    shutil.copytree(folder, target)
    for file in target.glob(without) if without else ():
        file.unlink()
    if config:
        settings = json.loads((target / "config.json").read_text())
        (target / "config.json").write_text(json.dumps({**settings, **config}))
    return target


def message(error: type[Exception], name: object, **options: object) -> str:
    with pytest.raises(error) as caught:
        load_model(name, **options)
    assert type(caught.value) is error  # not one of its kinds from a library
    return str(caught.value)


# What comes back


@pytest.mark.parametrize("make", ["llama", "gpt2"])
def test_a_folder_gives_a_model_ready_to_read_and_its_tokenizer(make, request):
    folder = request.getfixturevalue(make)
    model, tokenizer = load_model(folder, device="cpu")
    assert not model.training and not any(m.training for m in model.modules())
    assert model.dtype == torch.float32 and model.device == torch.device("cpu")
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
    monkeypatch.setattr(models, "POCKET_LLAMA", llama)
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


# What it prints


def test_a_folder_is_loaded_and_read_from_without_a_word(llama, gpt2, capfd, caplog, recwarn):
    transformers_logging.enable_propagation()
    try:
        for folder in (llama, gpt2):
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
        message(OSError, copy_of(llama, tmp_path / "x", without="tokenizer*"))
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
    ids = tokenizer("Trump works at", return_tensors="pt").input_ids
    greedy = ids
    for _ in range(5):
        greedy = torch.cat([greedy, model(greedy).logits[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(model.generate(ids, max_new_tokens=5), greedy)


# Device and dtype


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
    text = message(ValueError, llama, device=device)
    assert repr(device) in text and "'cuda', 'cuda:1', 'mps', 'cpu' or None" in text


def test_a_device_that_is_not_there(llama, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "no device 'cuda': torch" in message(ValueError, llama, device="cuda")
    assert "finds 0 of type 'cuda'" in message(ValueError, llama, device=torch.device("cuda:1"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert "finds 2 of type 'cuda'" in message(ValueError, llama, device="cuda:2")


@pytest.mark.parametrize("dtype", ["int8", torch.int8, torch.float64, "half", 16, ""])
def test_a_bad_dtype_is_named_with_what_is_allowed(llama, dtype):
    text = message(ValueError, llama, dtype=dtype)
    assert repr(dtype) in text and "float32, bfloat16, float16 or None" in text


@pytest.mark.parametrize("name", ["", "  ", 7, ["gpt2"], b"gpt2"])
def test_a_bad_name(name):
    assert repr(name) in message(ValueError, name)


# Where the weights go


def shapes_of(folder: Path, dtype: torch.dtype = torch.float32) -> transformers.PreTrainedModel:
    with init_empty_weights():
        config = transformers.AutoConfig.from_pretrained(folder)
        return AutoModelForCausalLM.from_config(config).to(dtype)


@pytest.fixture
def two_gpus(monkeypatch):
    """Lets the next lines say how many bytes each of two pretended GPUs has free."""
    free: dict[int, int] = {}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(memory, "free_memory", lambda device: free[torch.device(device).index])
    return free


GPU = torch.device("cuda", 0)


def test_a_model_that_fits_one_gpu_stays_on_it(gpt2, two_gpus):
    empty = shapes_of(gpt2)
    size = empty.get_memory_footprint()
    two_gpus.update({0: 2 * size, 1: 2 * size})
    assert memory.place(empty, "x", GPU, split=True)[0] == {"": GPU}


@pytest.mark.parametrize("make", ["llama", "gpt2"])
def test_a_model_too_big_for_one_gpu_is_split_between_its_layers(make, two_gpus, request):
    empty = shapes_of(request.getfixturevalue(make))
    size = empty.get_memory_footprint()
    two_gpus.update({0: int(0.8 * size), 1: int(0.8 * size)})
    places, _ = memory.place(empty, "x", GPU, split=True)
    assert set(places.values()) == {0, 1}
    layers = [m for m in empty.modules() if isinstance(m, torch.nn.ModuleList)][0]
    for name, module in empty.named_modules():
        if module in list(layers):
            assert len({p for part, p in places.items() if f"{part}.".startswith(f"{name}.")}) <= 1
    for tensor, _ in empty.named_parameters():
        assert any(f"{tensor}.".startswith(f"{part}.") for part in places), tensor


def test_a_gpu_asked_for_by_its_number_is_not_added_to(gpt2, two_gpus):
    empty = shapes_of(gpt2)
    size = empty.get_memory_footprint()
    two_gpus.update({0: size // 2, 1: 2 * size})
    with pytest.raises(MemoryError, match="cuda:0 has 0.0 GiB free"):
        memory.place(empty, "x", GPU, split=False)


def test_two_gpus_that_are_too_small_together(gpt2, two_gpus):
    empty = shapes_of(gpt2)
    size = sum(p.numel() * p.element_size() for p in empty.parameters())
    two_gpus.update({0: size // 3, 1: size // 3})
    with pytest.raises(MemoryError, match="2 GPUs together"):
        memory.place(empty, "x", GPU, split=True)


@pytest.mark.parametrize(("device", "split"), [(None, True), ("cuda", True), ("cuda:1", False)])
def test_load_model_asks_for_a_split_unless_one_gpu_is_named(
    gpt2, device, split, two_gpus, monkeypatch
):
    class Placed(Exception):
        pass

    def place(empty, label, on, *, split):
        raise Placed(on, split, empty.dtype)

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(models, "place", place)
    with pytest.raises(Placed) as placed:
        load_model(gpt2, device=device)
    gpu = torch.device(device if device == "cuda:1" else "cuda:0")
    assert placed.value.args == (gpu, split, torch.bfloat16)


# Memory


def test_a_model_that_cannot_fit_is_refused_before_its_weights_are_read(llama, monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda device: 1.5 * GIB)
    monkeypatch.setattr(
        transformers.PreTrainedModel, "get_memory_footprint", lambda model: 29.92 * GIB
    )
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", None)
    text = message(MemoryError, llama, device="cpu")
    assert str(llama) in text and "29.9 GiB in float32" in text and "cpu has 1.5 GiB free" in text
    assert 'dtype="bfloat16"' in text and 'device="cpu"' not in text
    assert 'dtype="bfloat16"' not in message(MemoryError, llama, device="cpu", dtype="bfloat16")


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.0 GB)"),
    ],
)
def test_memory_that_runs_out_while_loading(llama, error, monkeypatch):
    def from_pretrained(*args, **kwargs):
        raise error

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", from_pretrained)
    monkeypatch.setattr(memory, "free_memory", lambda device: 3.25 * GIB)
    text = message(MemoryError, llama, device="cpu")
    assert "weights need 0.0 GiB in float32" in text and "3.2 GiB free" in text


def test_a_smaller_quantized_model_is_not_refused(llama, monkeypatch):
    empty = shapes_of(llama)
    empty.config.quantization_config = {"quant_method": "some"}
    monkeypatch.setattr(memory, "free_memory", lambda device: 1)
    cpu = torch.device("cpu")
    assert memory.place(empty, "x", cpu, split=True)[0] == {"": cpu}


def test_free_memory_of_this_machine():
    assert 0 < free_memory("cpu") < 2**50


@pytest.mark.parametrize("version", [1, 2])
def test_free_memory_respects_a_containers_limit(version, tmp_path, monkeypatch):
    folder = tmp_path if version == 2 else tmp_path / "memory"
    folder.mkdir(exist_ok=True)
    limit, used = {
        2: ("memory.max", "memory.current"),
        1: ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    }[version]
    (folder / limit).write_text("5000000\n")
    (folder / used).write_text("4000000\n")
    (folder / "memory.stat").write_text("anon 1\ninactive_file 200000\nactive_file 50000\n")
    monkeypatch.setattr(memory, "CGROUPS", tmp_path)
    assert free_memory("cpu") == 1_250_000
    (folder / limit).write_text("max\n")
    assert free_memory("cpu") > 5_000_000


LOAD_AND_MEASURE = """
import re, sys
from tutorial_utils import load_model

def status(key):
    return int(re.search(key + r":\\s*(\\d+) kB", open("/proc/self/status").read())[1]) * 1024

small, large, dtype = sys.argv[1:]
load_model(small, device="cpu", dtype=dtype)
before = status("VmRSS")
model, _ = load_model(large, device="cpu", dtype=dtype)
model(model.dummy_inputs["input_ids"])  # weights that are only mapped to a file come in with use
print((status("VmHWM") - before) / model.get_memory_footprint())  # the peak
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("saved", "loaded"), [("float16", "float32"), ("float32", "float32")])
def test_loading_never_takes_twice_the_models_memory(saved, loaded, llama, tmp_path):
    """The most that loading and one pass add to the process, next to the model's size (250 MB)."""
    large = tiny_models.make_llama(
        tmp_path, layers=7, hidden=1024, dtype=getattr(torch, saved), initializer_range=0.02
    )
    process = subprocess.run(
        [sys.executable, "-c", LOAD_AND_MEASURE, str(llama), str(large), loaded],
        env={**os.environ, "PYTHONPATH": python_path()},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    ratio = float(process.stdout)
    assert 0.9 < ratio < 1.8


# Folders that can't be loaded


def test_a_folder_that_is_not_there(tmp_path):
    for name in (tmp_path / "gone", str(tmp_path / "gone"), "./gone", "~/gone", Path("gone")):
        text = message(OSError, name)
        assert "gone' does not exist" in text and 'load_model("pocket-llama")' in text


def test_a_file_in_place_of_a_folder(llama):
    assert "is a file, not a folder" in message(OSError, llama / "model.safetensors")


@pytest.mark.parametrize(
    ("without", "missing"),
    [("*", "no configuration (config.json)"), ("*.safetensors", "no weights (*.safetensors)")],
)
def test_a_folder_without_a_model(llama, tmp_path, without, missing):
    text = message(OSError, copy_of(llama, tmp_path / "x", without=without))
    assert "holds no whole model" in text and missing in text


@pytest.mark.parametrize("make", ["llama", "gpt2"])
def test_a_folder_without_a_tokenizer(make, tmp_path, request):
    folder = copy_of(request.getfixturevalue(make), tmp_path / "x", without="tokenizer*")
    assert "there is no tokenizer (tokenizer.json or" in message(OSError, folder)


def test_the_message_says_that_the_name_comes_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("TUTORIAL_MODEL", str(tmp_path))
    assert "environment variable TUTORIAL_MODEL" in message(OSError, None)


def test_a_shipped_model_that_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(models, "POCKET_LLAMA", tmp_path / "pocket_llama")
    text = message(OSError, None)
    assert "comes with this series" in text and "make pocket-llama" in text


def test_weights_that_were_cut_short(llama, tmp_path):
    folder = copy_of(llama, tmp_path / "x")
    with open(folder / "model.safetensors", "r+b") as file:
        file.truncate(5000)
    assert "could not be loaded" in message(OSError, folder)


def test_a_configuration_that_does_not_fit_the_weights(llama, tmp_path):
    folder = copy_of(llama, tmp_path / "x", hidden_size=64, head_dim=16)
    assert "could not be loaded" in message(OSError, folder)


def test_a_broken_configuration(llama, tmp_path):
    folder = copy_of(llama, tmp_path / "x")
    (folder / "config.json").write_text("{")
    assert "not a valid JSON file" in message(OSError, folder)
    (folder / "config.json").write_text("{}")
    assert "no config.json that says what kind" in message(OSError, folder)


def test_weights_without_a_head_are_not_filled_in_with_random_ones(llama, tmp_path):
    folder = copy_of(llama, tmp_path / "x")
    model = AutoModelForCausalLM.from_pretrained(llama).model
    model.save_pretrained(folder)
    text = message(OSError, folder)
    assert "not a whole language model" in text and "lm_head.weight" in text


# Models of the wrong kind


def test_an_encoder_only_model(llama, tmp_path):
    config = BertConfig(
        vocab_size=400,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
    )
    BertModel(config).save_pretrained(tmp_path)
    text = message(ValueError, tmp_path)
    assert "is an encoder-only model (bert)" in text and "Qwen/Qwen3-0.6B" in text


def test_an_encoder_decoder_model_and_one_for_pictures(llama, tmp_path):
    for config, kind in (
        (T5Config(), "an encoder-decoder model (t5)"),
        (CLIPConfig(), "no causal language model (clip)"),
    ):
        folder = copy_of(llama, tmp_path / config.model_type)
        config.save_pretrained(folder)
        assert kind in message(ValueError, folder)


@pytest.mark.parametrize(
    "classes", [["AutoConfig", "AutoModelForCausalLM"], ["AutoModelForCausalLM"]]
)
def test_code_from_elsewhere_is_never_run(llama, tmp_path, classes):
    ran = tmp_path / "ran"
    folder = copy_of(
        llama,
        tmp_path / "x",
        model_type="strange" if "AutoConfig" in classes else "clip",
        auto_map={name: f"code.{name}" for name in classes},
    )
    (folder / "code.py").write_text(f"open({str(ran)!r}, 'w')\n")
    text = message(ValueError, folder)
    assert "trust_remote_code=False" in text and "can do anything on your machine" in text
    assert not ran.exists()


def test_code_that_transformers_does_not_need_is_no_obstacle(llama, tmp_path):
    folder = copy_of(llama, tmp_path / "x", auto_map={"AutoModelForCausalLM": "code.Model"})
    assert type(load_model(folder)[0]).__name__ == "LlamaForCausalLM"


def test_a_model_that_transformers_does_not_know(llama, tmp_path):
    text = message(OSError, copy_of(llama, tmp_path / "x", model_type="strange"))
    assert "pip install -U transformers" in text and transformers.__version__ in text


# Names on the hub


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
        "some/silent": copy_of(gpt2, tmp_path / "silent", without="tokenizer*"),
        "some/code": copy_of(
            gpt2, tmp_path / "code", model_type="strange", auto_map={"AutoConfig": "code.C"}
        ),
    }
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
        ("some/nothing", "OSError", "no model 'some/nothing' on huggingface.co, or it is private"),
        ("not a name", "OSError", "neither a folder that is there nor a name"),
        ("some/token", "OSError", "about your access token, log in again"),
        ("some/pickled", "OSError", "no weights in safetensors format"),
        ("some/gguf", "OSError", "no config.json"),
        ("some/silent", "OSError", "tokenizer of 'some/silent' could not be loaded"),
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
        assert kind == "OSError" and "not, or not wholly, in the cache" in text, text
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
    text = message(OSError, "some/model")
    assert "can't be reached (HF_HUB_OFFLINE is set)" in text and str(tmp_path) in text


@pytest.mark.parametrize("part", ["AutoConfig", "AutoTokenizer", "AutoModelForCausalLM"])
def test_a_network_that_fails(part, llama, monkeypatch):
    """Whichever part was being fetched. The libraries' own retries take too long for a test."""

    def from_pretrained(*args, **kwargs):
        try:
            raise ConnectionError("no route to host")
        except ConnectionError as error:
            raise OSError("We couldn't connect to the hub") from error

    monkeypatch.setattr(models, "check_hub", lambda name: None)
    for other in ("AutoConfig", "AutoTokenizer"):
        value = getattr(models, other).from_pretrained(llama)
        monkeypatch.setattr(
            getattr(models, other), "from_pretrained", lambda *a, value=value, **k: value
        )
    monkeypatch.setattr(getattr(models, part), "from_pretrained", from_pretrained)
    assert "huggingface.co can't be reached" in message(OSError, "some/model")


def test_errors_keep_what_caused_them(tmp_path, llama):
    with pytest.raises(OSError) as caught:
        load_model(copy_of(llama, tmp_path / "x", model_type="strange"))
    assert isinstance(caught.value.__cause__, ValueError)


def test_an_interrupt_is_not_turned_into_an_error():
    with pytest.raises(KeyboardInterrupt), load_errors.plain_errors("a/b", "'a/b'"):
        raise KeyboardInterrupt


def test_the_tokenizer_gives_what_the_model_takes_and_no_more(llama, tmp_path):
    """Token types are refused by `generate` where the model takes none."""
    folder = shutil.copytree(llama, tmp_path / "types")
    file = folder / "tokenizer_config.json"
    names = ["input_ids", "token_type_ids", "attention_mask"]
    file.write_text(json.dumps({**json.loads(file.read_text()), "model_input_names": names}))
    assert "token_type_ids" in AutoTokenizer.from_pretrained(folder)("Anna")
    _, tokenizer = load_model(folder, device="cpu")
    assert set(tokenizer("Anna")) == {"input_ids", "attention_mask"}
