"""Runs the tools of one environment, one line of JSON in and one out. Started by run.py."""

from __future__ import annotations

import gc
import importlib.metadata
import json
import os
import sys
import time

# What the tools print belongs to the person at the terminal, and the answers to run.py.
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

import jobs as whole_jobs  # noqa: E402
import torch  # noqa: E402
from tools import GROUPS, bare, minimal_hooks  # noqa: E402
from torch.profiler import ProfilerActivity, profile  # noqa: E402

from models import build, token_ids  # noqa: E402

torch.set_num_threads(1)
group = sys.argv[1]
tools: dict = {}
ids = None


def prepare(model: str, batch: int, seq: int) -> dict:
    """Get ready for a row; each tool is run and its result compared with hooks by hand."""
    global ids
    if tools.get("model") != model:
        tools.clear()
        # One model for the tool, which may change it, and one that it leaves alone.
        plain = build(model)
        theirs = plain if group == "ours" else build(model)
        tools.update(GROUPS[group](theirs), bare=bare(plain), check=minimal_hooks(plain))
        tools["model"] = model
    ids = token_ids(batch, seq)
    names = [name for name in tools if name not in ("model", "bare", "check")]
    expected = tools["check"](ids)
    for name in names:
        kept = tools[name](ids)
        for layer, tensor in (kept or {}).items():
            wanted = expected[layer][:, -1:] if "last token" in name else expected[layer]
            torch.testing.assert_close(tensor, wanted, atol=1e-3, rtol=1e-3)
    return {"tools": names, "seconds": run("bare")}


def prepare_jobs(folder: str) -> list[str]:
    """Get ready for whole jobs on the model in this folder."""
    tools.clear()
    found = whole_jobs.prepare(group, folder)
    tools.update({name: lambda ids, job=job: job() for name, job in found.items()})
    return [*tools]


def check_job(name: str, file: str) -> None:
    """Compare what comes out of a job with what is in the file, or put it there."""
    found = tools[name](None)
    if not isinstance(found, torch.Tensor):  # the bare pass
        return
    if os.path.exists(file):
        wanted = torch.load(file)
        # Autoencoders that begin elsewhere end elsewhere: compared is how good they are.
        near = 0.02 if name.startswith("features") else 2e-3
        torch.testing.assert_close(found.view_as(wanted), wanted, atol=near, rtol=2e-3)
    else:
        torch.save(found, file)


def run(name: str) -> float:
    started = time.process_time()  # of all threads; a busy machine does not count
    kept = tools[name](ids)
    seconds = time.process_time() - started
    del kept
    return seconds


def memory(name: str) -> dict:
    """Bytes: the peak above the weights, and what the result holds."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        kept = tools[name](ids)
    events = profiler.profiler.kineto_results.events()
    changes = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
    total = peak = 0
    for _, change in sorted(changes, key=lambda pair: pair[0]):
        total += change
        peak = max(peak, total)
    storages = [tensor.untyped_storage() for tensor in (kept or {}).values()]
    held = {storage.data_ptr(): storage.nbytes() for storage in storages}
    return {"peak": peak, "kept": sum(held.values())}


def versions() -> dict:
    names = ["torch", "transformers"] + ([] if group == "ours" else [group])
    return {name: importlib.metadata.version(name) for name in names}


if __name__ == "__main__":
    gc.disable()  # it would strike anywhere; once a round is enough
    for line in sys.stdin:
        command, *given = json.loads(line)
        if command == "run":
            gc.collect()
            answer = [run(name) for name in given]
        elif command == "prepare":
            answer = prepare(*given)
        elif command == "jobs":
            answer = prepare_jobs(*given)
        elif command == "check job":
            answer = check_job(*given)
        elif command == "memory":
            answer = memory(*given)
        else:
            answer = versions()
        print(json.dumps(answer), file=answers, flush=True)
