"""Shared by scripts and tests: reads lessons, and sets their variables and time limits."""

from __future__ import annotations

import base64
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

# The time limit of one lesson on 2 cores, in seconds, with the kernel's start and the imports. It
# counts the time by the clock or the processor time of the kernel, whichever is less, so that a
# lesson does not fail because other programs keep the machine busy. After three times this limit
# by the clock, the lesson is stopped. On a slower machine, set NOTEBOOK_SECONDS=60.
NOTEBOOK_SECONDS = float(os.environ.get("NOTEBOOK_SECONDS", 20))
# A lesson that trains something gets more, as many times more as is written here.
LONGER = {"sparse_features": 45 / 20}
ALL_NOTEBOOKS_SECONDS = (9 + sum(LONGER.values())) * NOTEBOOK_SECONDS

COLOURS = re.compile(r"\x1b\[[0-9;]*m")

README_PICTURE = ROOT / "docs" / "first-lesson.png"

# The metadata of a lesson's file, apart from a hash of its cells.
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
# The metadata of a cell that is kept: tags are for the tests, slideshow is for the slides.
KEPT = ("tags", "slideshow")
# JupyterLab then shows an output once the cell has run. The site and GitHub show it at once.
HIDDEN = {"jupyter": {"outputs_hidden": True}}
WIDGET_MIME = "application/vnd.jupyter.widget-view+json"


def lesson_on(subject: str) -> Path:
    """The lesson whose file's name has all words of `subject`: "hooks", "the logit lens"."""
    words = set(re.findall(r"\w+", subject.lower())) - {"the"}
    found = [path for path in LESSONS if words <= set(path.stem.split("_"))]
    if len(found) != 1:
        names = ", ".join(path.stem for path in LESSONS)
        raise ValueError(f"'the lesson on {subject}' does not name exactly one of: {names}")
    return found[0]


def picture_of_readme(nb: NotebookNode) -> tuple[bytes, str]:
    """The figure of the first lesson that the README shows, as PNG, and its description."""
    [cell] = [c for c in code_cells(nb) if "plot_pipeline(tokens, " in c.source]
    [data] = [output.data for output in cell.outputs if "data" in output]
    return png_in(data["text/html"]), data["text/plain"]


def png_in(page: str) -> bytes:
    """The first picture that is written out in HTML."""
    return base64.b64decode(re.search(r"data:image/png;base64,([^\"]+)", page)[1])


def printed(cells: list[NotebookNode]) -> str:
    """What code cells printed, one after the other."""
    return "\n".join(output.get("text", "") for cell in cells for output in cell.outputs)


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def new_notebook(*sources: str, tags: tuple[str, ...] = ()) -> NotebookNode:
    """A notebook of code cells, each with these tags."""
    cells = [nbformat.v4.new_code_cell(source, metadata={"tags": [*tags]}) for source in sources]
    return nbformat.v4.new_notebook(cells=cells, metadata=copy.deepcopy(METADATA))


def code_cells(nb: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in nb.cells if cell.cell_type == "code"]


def to_be_predicted(nb: NotebookNode) -> list[NotebookNode]:
    """The cells whose output answers a "Predict first".

    After each, these are the next cell with an output, and those between it and the next text.
    """
    found, asked, answered = [], False, False
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            asked = (asked and not answered) or "**Predict first" in cell.source
            answered = False
        elif asked and cell.get("outputs"):
            found.append(cell)
            answered = True
    return found


def tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def name_cell(nb: NotebookNode, cell: NotebookNode) -> str:
    """How a message points at a cell: its place among the cells, from 1, and its first line."""
    place = next(i for i, other in enumerate(nb.cells, start=1) if other is cell)
    first_line = cell.source.strip().split("\n")[0][:60]
    return f"cell {place} ({first_line})"


def hash_sources(nb: NotebookNode) -> str:
    """A hash of all code cells, to tell whether the stored outputs come from this code."""
    sources = "\0".join(cell.source for cell in code_cells(nb))
    return hashlib.sha256(sources.encode()).hexdigest()[:16]


def join_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Join text that was printed in a row to one output, even if the kernel sent it in parts."""
    joined: list[NotebookNode] = []
    for output in outputs:
        last = joined[-1] if joined else None
        if last and output.output_type == "stream" == last.output_type and output.name == last.name:
            last.text += output.text
        else:
            joined.append(copy.deepcopy(output))
    return joined


def kernel_environment(**extra: str) -> dict[str, str]:
    """The environment variables of a lesson's kernel: no network, no downloaded models."""
    folders = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    kept = {k: v for k, v in os.environ.items() if k not in ("TUTORIAL_MODEL", "MPLBACKEND")}
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(filter(None, folders)),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        # A model this small gains nothing from a second thread, and loses much if a thread has to
        # wait for a busy core: on a busy machine one lesson took 10 s with one, 137 s with two.
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",  # where a lesson gets two, on SmolLM2: as `make lab` sets it
        "HF_HUB_OFFLINE": "1",
        "TUTORIAL_PROGRESS": os.devnull,  # what runs here is not the reader's progress
        "HF_HUB_CACHE": str(ROOT / "build" / "no-models-here"),
        **extra,
    }


def seconds_of(name: str) -> float:
    """The time limit of the lesson with this path or file name."""
    return LONGER.get(Path(name).stem[3:], 1) * NOTEBOOK_SECONDS


def are_too_slow(seconds: dict[str, float]) -> bool:
    """Whether the lessons together took longer than allowed."""
    return sum(seconds.values()) > ALL_NOTEBOOKS_SECONDS


def tell_seconds(seconds: dict[str, float]) -> list[str]:
    """Lines with the time and the time limit of each lesson, and of all together."""
    lines = [f"{took:6.1f} s of {seconds_of(name):g}  {name}" for name, took in seconds.items()]
    verdict = "TOO SLOW" if are_too_slow(seconds) else "together"
    return [*lines, f"{sum(seconds.values()):6.1f} s of {ALL_NOTEBOOKS_SECONDS:g}  {verdict}"]
