"""Where the weights go, and what is said when there is no room for them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from accelerate import init_empty_weights
from transformers import AutoModelForCausalLM

import tiny_models
from fake_hub import python_path
from model_folders import refusal
from tutorial_utils.models import load, memory
from tutorial_utils.models.load import load_model
from tutorial_utils.models.memory import free_memory

GIB = 2**30
GPU = torch.device("cuda", 0)


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
    layers = next(m for m in empty.modules() if isinstance(m, torch.nn.ModuleList))
    for name, module in empty.named_modules():
        if module in list(layers):
            assert len({p for part, p in places.items() if f"{part}.".startswith(f"{name}.")}) <= 1
    for tensor, _ in empty.named_parameters():
        assert any(f"{tensor}.".startswith(f"{part}.") for part in places), tensor


def test_a_gpu_asked_for_by_its_number_is_not_added_to(gpt2, two_gpus):
    empty = shapes_of(gpt2)
    size = empty.get_memory_footprint()
    two_gpus.update({0: size // 2, 1: 2 * size})
    with pytest.raises(MemoryError, match=r"there are 0\.0 GiB free on cuda:0"):
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

    def place(empty, label, on, *, split, in_four_bits):
        raise Placed(on, split, empty.dtype)

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(load, "place", place)
    with pytest.raises(Placed) as placed:
        load_model(gpt2, device=device)
    gpu = torch.device(device if device == "cuda:1" else "cuda:0")
    assert placed.value.args == (gpu, split, torch.bfloat16)


def test_a_model_that_cannot_fit_is_refused_before_its_weights_are_read(llama, monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda device: 1.5 * GIB)
    monkeypatch.setattr(
        transformers.PreTrainedModel, "get_memory_footprint", lambda model: 29.92 * GIB
    )
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", None)
    text = refusal(MemoryError, llama, device="cpu")
    assert (
        str(llama) in text
        and "29.9 GiB in float32" in text
        and "there are 1.5 GiB free on cpu" in text
    )
    assert 'dtype="bfloat16"' in text and 'device="cpu"' not in text
    in_four_bits = memory.no_room("x", "4 bits", 2, 1, "cpu")
    assert in_four_bits.endswith("that hold memory, or take a smaller model.")
    assert 'dtype="bfloat16"' not in refusal(MemoryError, llama, device="cpu", dtype="bfloat16")


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
    text = refusal(MemoryError, llama, device="cpu")
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
