"""The whole series on a GPU: on the shipped model, and on one of Llama-3.1-8B's dimensions.

Skipped where there is no CUDA GPU. On a machine that has one, with what each lesson took:

    NOTEBOOK_SECONDS=300 pytest tests/notebooks/test_gpu.py -s
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import gpu
import pytest
import torch

from lesson_runs import Report, run_once
from notebook_tools import LESSONS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
ROOM = 25e9  # bytes on the GPU for a lesson on 8 billion parameters: weights 16.1, and what it adds


@pytest.fixture(scope="module", params=["shipped", "8b"])
def runs(request) -> Iterator[tuple[str, dict[Path, Future[Report]]]]:
    """All lessons on one model, as many at a time as the machine has room for."""
    device, size = torch.device("cuda"), request.param
    at_once = max(1, (os.cpu_count() or 1) // 4)
    if size == "8b":
        room = torch.cuda.get_device_properties(device).total_memory // ROOM
        lacking = gpu.what_is_lacking(device) or ("" if room else "the GPU is too small for it")
        if lacking:
            pytest.skip(lacking)
        at_once = min(at_once, int(room))
    with gpu.model_folder(size, device) as folder, ThreadPoolExecutor(at_once) as pool:
        torch.cuda.empty_cache()
        run = [pool.submit(run_once, lesson, TUTORIAL_MODEL=str(folder)) for lesson in LESSONS]
        yield size, dict(zip(LESSONS, run, strict=True))
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_the_lesson_runs(runs, lesson):
    size, reports = runs
    report = reports[lesson].result()
    row = f"{lesson.stem} | {size} | {report.seconds:.0f} s | {report.gpu_bytes / 1e9:.2f} GB"
    print(f"\n| {row} |", flush=True)
    assert not report.problems, "\n".join(report.problems)
    assert report.gpu_bytes > 0
