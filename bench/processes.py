"""The rate of the harvest: one process and two, each with one thread on a core of its own.

`python bench/processes.py MODEL PROMPTS OUT LAYERS SHARD SHARE OF` is one of these processes. It
loads the model, says that it is ready, and begins when its input ends.
"""

from __future__ import annotations

import filecmp
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from task import WORDS, lengths
from tqdm import tqdm

from tutorial_utils import harvest_activations, read_harvest

SHARDS = 20
PROMPTS = {"pocket-llama": 400, "smollm2": 20}  # in a shard
LAYERS = {"the middle layer": "middle", "all layers": "all"}


def measure(model: str, folder: Path, rounds: int) -> dict:
    """{layers: what was found}: tokens per second of each round, by one process and by two.

    Every token is kept, and written to disk. "with start-up" counts from the start of Python on.
    """
    found = {}
    with tempfile.TemporaryDirectory() as place:
        prompts, shard = Path(place) / "prompts.txt", PROMPTS[model]
        write_prompts(prompts, shard)
        for said, layers in LAYERS.items():
            rates: dict = {}
            for _ in tqdm(range(rounds), desc=f"harvest of {model}, {said}"):
                outs = {}
                for of in random.sample((1, 2), 2):
                    outs[of] = tempfile.TemporaryDirectory(dir=place)
                    given = folder, prompts, outs[of].name, layers, shard
                    tokens, size, *seconds = one_run(*map(str, given), of=of)
                    for name, took in zip((f"{of}", f"{of}, with start-up"), seconds):
                        rates.setdefault(name, []).append(round(tokens / took, 2))
                check_same(*(out.name for out in outs.values()))
                for out in outs.values():
                    out.cleanup()
            found[said] = {"tokens": tokens, "bytes": size, "tokens per second": rates}
    return found


def write_prompts(path: Path, shard: int) -> None:
    """Texts of 4 to 90 words in no order. All shards have the same lengths, so the same work."""
    rng, lines = random.Random(0), []
    for _ in range(SHARDS):
        lines += [" ".join(rng.choices(WORDS, k=count)) for count in lengths(shard, rng)]
    path.write_text("\n".join(lines) + "\n")


def one_run(*given: str, of: int) -> tuple:
    """Tokens and bytes written, seconds of work, and seconds with the start of the processes."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    pipes["env"] = {**os.environ, "OMP_NUM_THREADS": "1"}
    times = [time.perf_counter()]
    processes = [
        subprocess.Popen([sys.executable, __file__, *given, str(share), str(of)], **pipes)
        for share in range(of)
    ]
    wait_for("ready", processes)
    times.append(time.perf_counter())
    for process in processes:
        process.stdin.close()
    wait_for("done", processes)
    times.append(time.perf_counter())
    for process in processes:
        process.wait()
    out = Path(given[2])
    size = sum(file.stat().st_size for file in out.glob("shard-*"))
    tokens = len(read_harvest(out)["token"])
    return tokens, size, times[2] - times[1], times[2] - times[0]


def wait_for(word: str, processes: list[subprocess.Popen]) -> None:
    if any(process.stdout.readline().strip() != word for process in processes):
        sys.exit("a process of the harvest ended: its own message is above")


def check_same(one: str, two: str) -> None:
    names = sorted(path.name for path in Path(one).glob("shard-*"))
    if len(names) != SHARDS or filecmp.cmpfiles(one, two, names, shallow=False)[0] != names:
        sys.exit("one process and two have not written the same shards")


def work(folder: str, prompts: str, out: str, layers: str, shard: int, share: int, of: int) -> None:
    """One of the processes, as under `accelerate launch`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {share})
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    middle = model.config.num_hidden_layers // 2
    print("ready", flush=True)
    sys.stdin.read()
    harvest_activations(
        model,
        tokenizer,
        prompts,
        out,
        layers=middle if layers == "middle" else None,
        positions="all",
        shard=shard,
        process=share,
        processes=of,
    )
    print("done", flush=True)


if __name__ == "__main__":
    work(*sys.argv[1:5], *map(int, sys.argv[5:]))
