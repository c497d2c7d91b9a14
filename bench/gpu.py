"""Measures what the lessons do on a large model, on the GPU of this machine.

    python bench/gpu.py                 Llama-3.1-8B's dimensions, random weights: 16.1 GB
    python bench/gpu.py --size tiny     a model of 100,000 parameters, on any machine

Times and memory do not depend on what the weights are, so that no access to the real ones is
needed. Prints a table in Markdown, ready for docs/gpu-boxes.md.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
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
from tutorial_utils.models import DTYPE

SIZES = {
    "8b": {  # as published for meta-llama/Llama-3.1-8B
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
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
    parser.add_argument("--size", choices=SIZES, default="8b")
    parser.add_argument("--tokens", type=int, default=512, help="in the prompt (512)")
    parser.add_argument("--repeats", type=int, default=10, help="of each measurement (10)")
    options = parser.parse_args(arguments)
    device = pick_device()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    print(f"{name}, {pick_dtype(device)}, {versions}, {options.tokens} tokens\n")
    print("| what | measured |\n|---|---|")
    for what, value in measure(options.size, options.tokens, options.repeats, device):
        print(f"| {what} | {value} |", flush=True)
    return 0


def measure(size: str, tokens: int, repeats: int, device: torch.device):
    """Yield (what, value in words), one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        save(size, Path(folder), device)
        started = perf_counter()
        model, _ = load_model(folder)
        wait(device)
        yield "load the weights from this disk", f"{perf_counter() - started:.1f} s"
    yield "weights", f"{model.get_memory_footprint() / 1e9:.2f} GB"
    ids = torch.randint(model.config.vocab_size, (1, tokens), device=device)
    timings = {
        "bare forward pass": lambda: model(input_ids=ids, use_cache=False),
        "with all layers recorded": lambda: record(model, ids),
        "with all layers recorded, to the host": lambda: record(model, ids, to="cpu"),
        "one DoLa step": lambda: dola_step(model, ids),
        "patching sweep, one position, all layers": lambda: patching_sweep(model, ids),
    }
    for what, function in timings.items():
        yield what, f"{median_ms(function, device, repeats):.1f} ms"
    yield "peak memory of all this", f"{peak_bytes(device) / 1e9:.2f} GB"


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
            results.append(model(input_ids=ids, use_cache=False).logits[:, -1])
    return torch.stack(results)  # (layer, batch, vocab)


def median_ms(function: Callable[[], object], device: torch.device, repeats: int) -> float:
    times = []
    with torch.no_grad():
        function()  # the first run is slower
        for _ in range(repeats):
            wait(device)
            started = perf_counter()
            function()
            wait(device)
            times.append(perf_counter() - started)
    return 1000 * statistics.median(times)


def wait(device: torch.device) -> None:
    """A GPU works while Python goes on: wait for it before the clock is read."""
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()


def peak_bytes(device: torch.device) -> int:
    """Of the GPU where there is one, of the process where not."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    sys.exit(main())
