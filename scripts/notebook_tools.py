"""Reads the lessons, and says what a kernel that runs them gets and how long they may take."""

from __future__ import annotations

import copy
import hashlib
import os
import re
from pathlib import Path

import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
LESSONS = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))

# What one lesson may take on 2 cores, in seconds: the kernel's start, the imports and every cell.
# Counted by the clock or by the processor time of the kernel, whichever is less, so that a lesson
# does not fail because something else keeps the machine busy. By the clock it is stopped after
# three times as long. A slower machine sets NOTEBOOK_SECONDS=60.
NOTEBOOK_SECONDS = float(os.environ.get("NOTEBOOK_SECONDS", 20))
# A lesson that trains something gets more, as many times more as is written here.
LONGER = {"sparse_features": 45 / 20}
ALL_NOTEBOOKS_SECONDS = (6 + sum(LONGER.values())) * NOTEBOOK_SECONDS

COLOURS = re.compile(r"\x1b\[[0-9;]*m")

# What a lesson's file says about itself, beside the cells and a hash of them.
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
# What a cell says about itself: what the tests need to know, and what the slides show of it.
KEPT = ("tags", "slideshow")
WIDGET_MIME = "application/vnd.jupyter.widget-view+json"


def lesson_on(subject: str) -> Path:
    """The lesson on a subject, by the words of its file's name: "hooks", "the logit lens"."""
    words = set(re.findall(r"\w+", subject.lower())) - {"the"}
    found = [path for path in LESSONS if words <= set(path.stem.split("_"))]
    if len(found) != 1:
        names = ", ".join(path.stem for path in LESSONS)
        raise ValueError(f"'the lesson on {subject}' is none, or several, of: {names}")
    return found[0]


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def new_notebook(*sources: str, tags: tuple[str, ...] = ()) -> NotebookNode:
    """A notebook of code cells, each with these tags."""
    cells = [nbformat.v4.new_code_cell(source, metadata={"tags": [*tags]}) for source in sources]
    return nbformat.v4.new_notebook(cells=cells, metadata=copy.deepcopy(METADATA))


def code_cells(nb: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in nb.cells if cell.cell_type == "code"]


def tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def name_cell(nb: NotebookNode, cell: NotebookNode) -> str:
    """How a message points at a cell: its place among the cells, from 1, and its first line."""
    place = next(i for i, other in enumerate(nb.cells, start=1) if other is cell)
    first_line = cell.source.strip().split("\n")[0][:60]
    return f"cell {place} ({first_line})"


def hash_sources(nb: NotebookNode) -> str:
    """Changes with any code cell: tells whether the outputs are those of the code above them."""
    sources = "\0".join(cell.source for cell in code_cells(nb))
    return hashlib.sha256(sources.encode()).hexdigest()[:16]


def join_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Text printed in a row is one output, however many messages the kernel made of it."""
    joined: list[NotebookNode] = []
    for output in outputs:
        last = joined[-1] if joined else None
        if last and output.output_type == "stream" == last.output_type and output.name == last.name:
            last.text += output.text
        else:
            joined.append(copy.deepcopy(output))
    return joined


def kernel_environment(**extra: str) -> dict[str, str]:
    """The variables that a lesson's kernel gets: no network, no model that happens to be here."""
    folders = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    kept = {k: v for k, v in os.environ.items() if k not in ("TUTORIAL_MODEL", "MPLBACKEND")}
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(filter(None, folders)),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        # A model this small gains nothing from a second thread, and loses much where one of them
        # has to wait for a busy core: one lesson took 10 s with one, 137 s with two, beside others.
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "TUTORIAL_PROGRESS": os.devnull,  # what is solved here was not solved by the reader
        "HF_HUB_CACHE": str(ROOT / "build" / "no-models-here"),
        **extra,
    }


def seconds_of(name: str) -> float:
    """What the lesson of this path or file's name may take."""
    return LONGER.get(Path(name).stem[3:], 1) * NOTEBOOK_SECONDS


def are_too_slow(seconds: dict[str, float]) -> bool:
    """Whether the lessons together took longer than they may."""
    return sum(seconds.values()) > ALL_NOTEBOOKS_SECONDS


def tell_seconds(seconds: dict[str, float]) -> list[str]:
    """What each lesson took of what it may take, a line for each and one for all."""
    lines = [f"{took:6.1f} s of {seconds_of(name):g}  {name}" for name, took in seconds.items()]
    verdict = "TOO SLOW" if are_too_slow(seconds) else "together"
    return [*lines, f"{sum(seconds.values()):6.1f} s of {ALL_NOTEBOOKS_SECONDS:g}  {verdict}"]
