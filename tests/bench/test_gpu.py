"""bench/gpu.py runs to its end on a machine without a GPU, and does what it says."""

from __future__ import annotations

import re
from types import SimpleNamespace

import gpu
import pytest
import torch

import tiny_models
from tutorial_utils import load_model, read_activations


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(tiny_models.make_llama(tmp_path_factory.mktemp("llama")), device="cpu")[0]


IDS = torch.tensor([[3, 40, 57, 60, 9], [8, 1, 100, 30, 200]])


@pytest.mark.parametrize(("size", "tokens"), [("tiny", 16), ("shipped", 256)])
def test_the_table(size, tokens, capsys, monkeypatch):
    monkeypatch.setattr(gpu, "pick_device", lambda: torch.device("cpu"))
    asked = {16: "16", 256: "300"}[tokens]  # the shipped model reads no more than 256
    assert gpu.main(["--size", size, "--tokens", asked, "--repeats", "2"]) == 0
    text = capsys.readouterr().out
    number = r"([\d.,]+)"
    row = rf"^\| (.+) \| {number} \({number}–{number}\) \| {number} \| {number} GB \|$"
    rows = re.findall(row, text, re.M)
    assert len(rows) == 8 and rows[0][4] == "1.00"  # the bare pass, to itself
    assert all(float(value) > 0 for _, *values in rows for value in values)
    assert re.search(r"^\| load the model \| [\d,]+ \| \| [\d.]+ GB \|$", text, re.M)
    assert f"torch {torch.__version__}" in text and f" {tokens} tokens" in text


def test_what_the_large_model_needs_is_told_before_it_is_made(capsys, monkeypatch):
    monkeypatch.setattr(gpu, "pick_device", lambda: torch.device("cpu"))
    with pytest.raises(SystemExit):
        gpu.main([])
    assert "no GPU here for 8b: take --size shipped" in capsys.readouterr().err
    disk = SimpleNamespace(free=5e9)
    monkeypatch.setattr(gpu.shutil, "disk_usage", lambda folder: disk)
    assert "5 GB free" in gpu.what_is_lacking(torch.device("cuda"))
    disk.free = 50e9
    assert gpu.what_is_lacking(torch.device("cuda")) == ""


def test_the_peak_on_a_gpu_is_that_of_one_line(monkeypatch):
    calls = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: calls.append("emptied"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: calls.append(device))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 7)
    device = torch.device("cuda", 0)
    gpu.reset_peak(device)
    assert calls == ["emptied", device] and gpu.peak_bytes(device) == 7


@torch.no_grad()
def test_the_dola_step_contrasts_the_layer_that_differs_most(model):
    final = model(IDS).logits[:, -1].softmax(-1)
    hidden = read_activations(model, IDS, layers=[0, 2])
    for row in range(2):
        best, choice = -1.0, None
        for layer in (0, 2):
            early = model.lm_head(model.model.norm(hidden[layer][row, -1])).softmax(-1)
            mean = (early + final[row]) / 2
            parts = [(p * (p / mean).log()).sum() for p in (early, final[row])]
            if sum(parts) / 2 > best:
                best, premature = sum(parts) / 2, early
        score = (final[row] / premature).log()
        score[final[row] < 0.1 * final[row].max()] = -torch.inf
        choice = score.argmax()
        assert gpu.dola_step(model, IDS)[row] == choice


@torch.no_grad()
def test_the_patching_sweep_ends_with_the_other_prompt_s_answer(model):
    swept = gpu.patching_sweep(model, IDS)
    assert swept.shape == (5, 2, model.config.vocab_size)
    other = model(IDS.flip(1)).logits[:, -1]
    torch.testing.assert_close(swept[-1], other, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(swept[0], other, atol=1e-2)


def test_the_dimensions_are_those_of_the_8_billion():
    with torch.device("meta"):
        large = gpu.AutoModelForCausalLM.from_config(gpu.LlamaConfig(**gpu.SIZES["8b"]))
    assert large.num_parameters() == 8_030_261_248
