"""bench/gpu.py runs to its end on a machine without a GPU, and does what it says."""

from __future__ import annotations

import importlib.util
import re

import pytest
import torch

import tiny_models
from notebook_tools import ROOT
from tutorial_utils import load_model, read_activations


@pytest.fixture(scope="module")
def gpu():
    spec = importlib.util.spec_from_file_location("bench_gpu", ROOT / "bench" / "gpu.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(tiny_models.make_llama(tmp_path_factory.mktemp("llama")), device="cpu")[0]


IDS = torch.tensor([[3, 40, 57, 60, 9], [8, 1, 100, 30, 200]])


def test_the_table(gpu, capsys):
    assert gpu.main(["--size", "tiny", "--tokens", "16", "--repeats", "2"]) == 0
    text = capsys.readouterr().out
    rows = re.findall(r"^\| (.+) \| ([\d.]+) (s|ms|GB) \|$", text, re.M)
    assert [unit for _, _, unit in rows] == ["s", "GB", "ms", "ms", "ms", "ms", "ms", "GB"]
    assert all(float(value) > 0 for _, value, unit in rows if unit == "ms")
    assert f"torch {torch.__version__}" in text and "16 tokens" in text


@torch.no_grad()
def test_the_dola_step_contrasts_the_layer_that_differs_most(gpu, model):
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
def test_the_patching_sweep_ends_with_the_other_prompt_s_answer(gpu, model):
    swept = gpu.patching_sweep(model, IDS)
    assert swept.shape == (5, 2, model.config.vocab_size)
    other = model(IDS.flip(1)).logits[:, -1]
    torch.testing.assert_close(swept[-1], other, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(swept[0], other, atol=1e-2)


def test_the_dimensions_are_those_of_the_8_billion(gpu):
    with torch.device("meta"):
        large = gpu.AutoModelForCausalLM.from_config(gpu.LlamaConfig(**gpu.SIZES["8b"]))
    assert large.num_parameters() == 8_030_261_248
