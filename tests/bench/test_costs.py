"""What the package costs to have: time to import, size on the disk, packages that it needs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import report
import report_jobs
import run
from packaging.requirements import Requirement

import project_file

ROOT = Path(__file__).resolve().parents[2]


def test_import_time():
    """At most 50 ms beyond torch and transformers, with the functions that record and edit."""
    code = (
        "import time, torch, transformers; started = time.process_time(); "
        "from tutorial_utils import edit_activations, read_activations, record_activations; "
        "print(time.process_time() - started)"
    )
    seconds = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True)
    assert float(seconds) < 0.05


def test_installed_size():
    """At most 2 MB with the compiled files and all lessons, without the shipped model."""
    assert 10_000 < run.installed_bytes() <= 2_000_000


def test_dependencies():
    """What the package brings along: torch, transformers and accelerate, and what draws."""
    names = {Requirement(line).name for line in project_file.PROJECT["dependencies"]}
    allowed = {"torch", "transformers", "accelerate", "numpy", "matplotlib", "ipywidgets"}
    allowed |= {"psutil", "safetensors", "tqdm"}  # transformers and accelerate need them too
    assert names == allowed


def results(**changed: list[float]) -> dict:
    """As run.py writes them: every tool twice as long as the bare pass, if not told otherwise."""
    names = [report.CONTROL, "minimal hooks", report.RECORD, report.READ, report.LAST]
    names += ["read, first quarter", *report.OTHERS]
    ratios = {name: [2.0, 2.0, 2.0] for name in names}
    ratios |= {report.CONTROL: [0.98, 1.0, 1.02], report.READ: [0.9] * 3} | changed
    ratios["read, first quarter"] = [0.25] * 3
    row = {"bare_ms": 1.0, "pairs": 3, "minutes": 0.1, "ratios": ratios}
    whole, last = 13 * 512 * 512 * 4, 13 * 512 * 4
    return {
        "rows": {"6 x 128, 1 x 16": row, "12 x 512, 1 x 512": row},
        "memory": {
            report.READ: {"peak": 22 * report.MIB, "kept": whole},
            report.LAST: {"peak": 12 * report.MIB, "kept": last},
        },
        "import_ms": 1.0,
        "installed_bytes": 1000,
    }


def test_the_figure_is_described_from_its_rows():
    made = results(nnsight=[1.1, 1.2, 1.3])
    made["rows"]["12 x 512, 1 x 512"] = results(nnsight=[1.5])["rows"]["6 x 128, 1 x 16"]
    said = report.described(made)
    assert "over 2 cases" in said and '"nnsight" 1.20 to 1.50' in said
    measured = json.loads((report.HERE / "results.json").read_text())
    assert f"![{report.described(measured)}]" in (report.DOCS / "benchmarks.md").read_text()


def test_bars_that_are_met():
    assert all(is_met for _, is_met, _ in report.bars(results()))


@pytest.mark.parametrize(
    ("changed", "missed"),
    [
        ({report.RECORD: [2.1] * 3}, "as fast as minimal hooks, within the control's spread"),
        ({"pyvene": [0.85] * 3}, "no other tool is faster than `read_activations`"),
        ({"nnterp": [1.2] * 3}, "`nnterp` takes at least 1.4 times as long"),
        ({report.READ: [0.99] * 3}, "at most 0.98 of the bare pass"),
    ],
)
def test_bars_that_are_not_met_are_said(changed, missed):
    told = [name for name, is_met, _ in report.bars(results(**changed)) if not is_met]
    assert any(missed in name for name in told)


def jobs(best: float, bare: float) -> dict:
    """As run.py writes them: of two other tools the faster one takes `best` times as long."""
    times = {"ours, seconds": [1.0] * 3, "plain": [9.0] * 3, "nnsight": [best] * 3}
    estimate = {"ours, seconds": [1.0] * 3, "bare pass": [bare] * 3}
    found = {**dict.fromkeys(report_jobs.JOBS, times), "estimate": estimate}
    return {"jobs": {"smollm2": found, "pocket-llama": found}}


def test_whole_jobs_that_are_fast_enough_or_not():
    told = report_jobs.job_bars(jobs(best=5.5, bare=0.25))
    assert len(told) == 4 and all(is_met for _, is_met, _ in told)
    told = report_jobs.job_bars(jobs(best=1.9, bare=0.1))
    assert not any(is_met for _, is_met, _ in told)
    assert [text for _, _, text in told] == ["nnsight, 1.90"] * 3 + ["10.00"]
    assert report_jobs.job_bars(results()) == []
    text = report_jobs.whole_jobs(jobs(best=5.5, bare=0.25))
    assert "### pocket-llama" in text and "| 3 | 1 (1–1) | 9 (9–9) | 5.5 (5.5–5.5) |" in text


def harvest(two: float) -> dict:
    """As processes.py finds it: one process makes 100 tokens per second, of 1000 bytes each."""
    rates = {"1": [100.0] * 3, "2": [two] * 3}
    rates |= {"1, with start-up": [50.0] * 3, "2, with start-up": [75.0] * 3}
    case = {"tokens": 500, "bytes": 500_000, "tokens per second": rates}
    return {"harvest": {"smollm2": {"all layers": case}}}


def test_the_harvest_by_processes():
    [(_, is_met, text)] = report_jobs.job_bars(harvest(two=190.0))
    assert is_met and text == "smollm2, all layers: 1.90"
    [(_, is_met, _)] = report_jobs.job_bars(harvest(two=179.0))
    assert not is_met
    text = report_jobs.harvests(harvest(two=200.0))
    assert "| smollm2, all layers | 500 | 100 | 200 | 2.00 | 1.50 | 0.2 |" in text
    # 1 million tokens are 1 GB, and take 10,000 seconds by one process.
    assert "| smollm2, all layers | 1 | 2.8 | 1.4 | 1,000 | 2,778 | 1,389 |" in text
    assert report_jobs.harvests(results()) == "Not measured yet."


def test_rows_that_were_not_measured_are_named():
    text = report.gaps(results())
    assert "pocket-llama, 8 x 512" in text.partition("Fewer than 30 pairs")[0]
    assert "6 x 128, 1 x 16" in text.partition("Fewer than 30 pairs")[2]


def test_a_row_that_another_tool_wins_is_named():
    lines = report.wins(results(**{"pyvene": [0.89] * 3}))
    assert len(lines) == 2 and "pyvene is faster by 0.010 of a bare pass, less than" in lines[0]
