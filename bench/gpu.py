"""Measures what the lessons do on a large model, on the GPU of this machine.

    python bench/gpu.py                  both of these, one table each:
    python bench/gpu.py --size 8b        Llama-3.1-8B's dimensions, random weights: 16.1 GB
    python bench/gpu.py --size shipped   the model that comes with the series
    python bench/gpu.py --size tiny      a model of 100,000 parameters

Times and memory do not depend on what the weights are, so that no access to the real ones is
needed. 8b needs a GPU; the others run on any machine. Prints tables in Markdown, ready for
docs/gpu-boxes.md.
"""

from __future__ import annotations

import argparse
import gc
import random
import resource
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import perf_counter

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, PreTrainedModel

from tutorial_utils import (
    POCKET_LLAMA,
    edit_activations,
    load_model,
    pick_device,
    pick_dtype,
    read_activations,
    record_activations,
)
from tutorial_utils.models.load import DTYPE

SIZES = {
    "8b": {  # as published for meta-llama/Llama-3.1-8B
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        "tie_word_embeddings": False,
    },
    "tiny": {
        "vocab_size": 1536,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": False,
    },
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", choices=[*SIZES, "shipped"], help="by default 8b, then shipped")
    parser.add_argument("--tokens", type=int, default=512, help="in the prompt, at most (512)")
    parser.add_argument("--repeats", type=int, default=30, help="of each measurement (30)")
    options = parser.parse_args(arguments)
    device = pick_device()
    sizes = [options.size] if options.size else ["8b", "shipped"]
    if "8b" in sizes and (lacking := what_is_lacking(device)):
        parser.error(lacking)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    print(f"{name}, {pick_dtype(device)}, {versions}, medians of {options.repeats}")
    for size in sizes:
        with model_folder(size, device) as folder:
            measure(size, folder, options.tokens, options.repeats, device)
    return 0


def what_is_lacking(device: torch.device) -> str:
    """What keeps this machine from measuring 8 billion parameters, and what to do; else nothing."""
    if device.type == "cpu":
        return "there is no GPU here for 8b: take --size shipped, or a machine with a GPU"
    free = shutil.disk_usage(tempfile.gettempdir()).free / 1e9
    if free < 17:
        return (
            f"8b needs 17 GB in {tempfile.gettempdir()}, which has {free:.0f} GB free: "
            "make room, or name another folder, TMPDIR=/a/larger/disk"
        )
    return ""


def measure(size: str, folder: Path, tokens: int, repeats: int, device: torch.device) -> None:
    """Print a table: each round runs everything once, in an order drawn anew."""
    reset_peak(device)
    started = perf_counter()
    model, _ = load_model(folder)
    wait(device)
    seconds, loaded = perf_counter() - started, peak_bytes(device)
    tokens = min(tokens, model.config.max_position_embeddings)
    print(f"\n{size}: {model.num_parameters():,} parameters, {tokens} tokens\n")
    ids = torch.randint(model.config.vocab_size, (1, tokens), device=device)
    functions = things_to_measure(model, ids)
    peaks, rounds = {}, []
    with torch.no_grad():
        for what, function in functions.items():  # this is the warm-up too
            reset_peak(device)
            milliseconds(function, device)
            peaks[what] = peak_bytes(device)
        for _ in range(repeats):
            order = random.sample(list(functions), len(functions))
            rounds.append({what: milliseconds(functions[what], device) for what in order})
    print("| what | ms, median (quartiles) | against the bare pass | memory at its peak |")
    print("|---|---|---|---|")
    print(f"| load the model | {1000 * seconds:,.0f} | | {loaded / 1e9:.2f} GB |")
    quartiles = partial(statistics.quantiles, n=4, method="inclusive")
    for what, peak in peaks.items():
        low, middle, high = quartiles([one[what] for one in rounds])
        ratio = statistics.median(one[what] / one["bare forward pass"] for one in rounds)
        cells = f"{middle:.1f} ({low:.1f}–{high:.1f}) | {ratio:.2f} | {peak / 1e9:.2f} GB"
        print(f"| {what} | {cells} |", flush=True)


def things_to_measure(model: PreTrainedModel, ids: torch.Tensor) -> dict[str, Callable]:
    many = ids.expand(16, -1)

    def bare() -> object:
        return model(input_ids=ids, use_cache=False)

    return {
        "bare forward pass": bare,
        "the same again": bare,
        "with all layers recorded": lambda: record(model, ids),
        "with all layers recorded, to the host": lambda: record(model, ids, to="cpu"),
        "one DoLa step": lambda: dola_step(model, ids),
        "patching sweep, one position, all layers": lambda: patching_sweep(model, ids),
        "16 prompts, bare forward pass": lambda: model(input_ids=many, use_cache=False),
        "16 prompts, last position of all layers read, to the host": lambda: read_activations(
            model, many, positions="last", to="cpu"
        ),
    }


@contextmanager
def model_folder(size: str, device: torch.device) -> Iterator[Path]:
    """The shipped model's folder, or one with a model of this size, deleted at the end."""
    if size == "shipped":
        yield POCKET_LLAMA
        return
    with tempfile.TemporaryDirectory() as folder:
        save(size, Path(folder), device)
        yield Path(folder)


def save(size: str, folder: Path, device: torch.device) -> None:
    """A model of this size with random weights, in the number format that it will be loaded in."""
    with torch.device(device):
        config = LlamaConfig(**SIZES[size])
        model = AutoModelForCausalLM.from_config(config, **{DTYPE: pick_dtype(device)})
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(POCKET_LLAMA).save_pretrained(folder)


def record(model: PreTrainedModel, ids: torch.Tensor, **options: object) -> None:
    with record_activations(model, **options):
        model(input_ids=ids, use_cache=False)


def dola_step(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    """One token's contrast of the last layer with the one that differs most, of every second.

    Chuang et al. 2023, equations 1 to 3.
    """
    n = model.config.num_hidden_layers
    candidates = list(range(0, n, 2))
    with record_activations(model, candidates, positions="last") as early:
        final = model(input_ids=ids, use_cache=False).logits[:, -1].float().log_softmax(-1)
    stacked = torch.stack([early[i][:, 0] for i in candidates])  # (candidates, batch, hidden)
    logits = model.get_output_embeddings()(model.model.norm(stacked))
    early_log = logits.float().log_softmax(-1)  # (candidates, batch, vocab)
    mean = torch.logaddexp(early_log, final[None]) - torch.log(torch.tensor(2.0))
    divergence = sum((p.exp() * (p - mean)).sum(-1) for p in (early_log, final[None])) / 2
    premature = early_log[divergence.argmax(dim=0), torch.arange(len(ids), device=ids.device)]
    likely = final >= final.max(-1, keepdim=True).values + torch.log(torch.tensor(0.1))
    return (final - premature).masked_fill(~likely, -torch.inf).argmax(-1)


def patching_sweep(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    """The logits with the last position of one layer taken from another prompt, layer by layer."""
    n = model.config.num_hidden_layers
    clean = read_activations(model, ids.flip(1), positions="last")
    results = []
    for layer in range(n + 1):

        def patch(hidden: torch.Tensor, layer: int = layer) -> torch.Tensor:
            hidden = hidden.clone()
            hidden[:, -1] = clean[layer][:, 0]
            return hidden

        with edit_activations(model, {layer: patch}):
            logits = model(input_ids=ids, use_cache=False).logits
            results.append(logits[:, -1].clone())  # a view would keep the logits of all positions
    return torch.stack(results)  # (layer, batch, vocab)


def milliseconds(function: Callable[[], object], device: torch.device) -> float:
    wait(device)
    started = perf_counter()
    function()
    wait(device)
    return 1000 * (perf_counter() - started)


def wait(device: torch.device) -> None:
    """A GPU works while Python goes on: wait for it before the clock is read."""
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()


def reset_peak(device: torch.device) -> None:
    """On a GPU the peak is that of each line of the table; elsewhere that of all lines so far."""
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> int:
    """Of the GPU where there is one, of the process where not."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    sys.exit(main())
