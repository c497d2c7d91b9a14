"""Runs the lessons on a real model and keeps what their cells tagged `real` found: `make real`.

    python scripts/real.py                                  all lessons, on SmolLM2
    python scripts/real.py notebooks/NN_TOPIC.ipynb         one of them
    TUTORIAL_MODEL=OWNER/NAME python scripts/real.py        the same of your own model, as a page

A lesson's cell with the tag `real` leaves a dict named `result`. On SmolLM2 it is stored in the
package, in the folder of the lesson's topic, with a hash of the code cells that made it. For
another model nothing is stored: build/real/NAME.md has what the cells after it print, which compare
`result` with that of SmolLM2, then `result` itself in short, and the seconds that each lesson took.
A lesson that ends with an error says so there.

A cell with the tag `spread` defines a function `trial(seed)`. Its results for five seeds on the
shipped model are stored in the same folder.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import sys
import time
from pathlib import Path
from textwrap import indent
from typing import Any

from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from kernel_transport import model_for_kernels
from notebook_tools import LESSONS, ROOT, code_cells, kernel_environment, printed, read, tags
from strict_client import StrictClient

SMOLLM2 = "smollm2"
SECONDS = 600  # a hang, not a slow machine
DIGITS = 4
MOST_CHARACTERS = 100  # of a row of the page
SEEDS = "[trial(seed) for seed in range(5)]"
TAG_OF = {SMOLLM2: "real", "spread": "spread"}  # of what is stored: the tag of the cell it rests on


def main() -> int:
    model = model_for_kernels(os.environ.get("TUTORIAL_MODEL", "").strip()) or SMOLLM2
    lessons = [Path(name).resolve() for name in sys.argv[1:]] or LESSONS
    with_result = [path for path in lessons if made_by(read(path)) is not None]
    if model != SMOLLM2:
        return write_page(model, with_result)
    for path in with_result:
        nb = read(path)
        if made_by(nb, "spread") is not None:
            store(nb, asyncio.run(run(nb, path, "", "spread", SEEDS)), "spread")
        started = time.monotonic()
        store(nb, asyncio.run(run(nb, path, model)))
        print(f"{path.name}: {time.monotonic() - started:.0f} s", flush=True)
    return 0


def write_page(model: str, lessons: list[Path]) -> int:
    """Write the page of a model, lesson by lesson, so that an error in one leaves the others."""
    page, failed = [f"# The lessons on {model}\n"], False
    file = ROOT / "build" / "real" / f"{model.strip('/').split('/')[-1]}.md"
    file.parent.mkdir(parents=True, exist_ok=True)
    for path in lessons:
        nb, started = read(path), time.monotonic()
        try:
            result = asyncio.run(run(nb, path, model))
            own = "\n".join(["What this model gave:", *rows_of(result)])
            table = f"```\n{printed(comparing(nb)).strip()}\n\n{own}\n```\n"
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            is_cell = isinstance(error, CellExecutionError)
            reason = indent(f"{error.ename}: {error.evalue}" if is_cell else str(error), "    ")
            table, failed = f"No result: this lesson ended with an error.\n\n{reason}\n", True
        seconds = f"{time.monotonic() - started:.0f} s"
        print(f"{path.name}: {seconds}{', an error' * table.startswith('No')}", flush=True)
        page.append(f"## {path.stem} ({seconds})\n\n{table}")
        file.write_text("\n".join(page), encoding="utf-8")
    print(f"Written: {file.relative_to(ROOT)}")
    return int(failed)


def numbers(found: Any, where: str = "") -> dict[str, float]:
    """All numbers of a result, by where they stand in it."""
    if isinstance(found, dict):
        parts = found.items()
    elif isinstance(found, list):
        parts = enumerate(found)
    else:
        return {where: float(found)} if isinstance(found, (int, float)) else {}
    return {k: v for key, part in parts for k, v in numbers(part, f"{where}/{key}").items()}


def rows_of(result: Any, name: str = "") -> list[str]:
    """A line for each part of a result: short ones in full, of long lists of numbers the range."""
    if isinstance(result, dict):
        return [row for key, part in result.items() for row in rows_of(part, f"{name} {key}")]
    text = json.dumps(result, ensure_ascii=False)
    if len(text) > MOST_CHARACTERS:
        found = numbers(result).values()
        text = f"{text[: MOST_CHARACTERS - 40]} …"
        if found:
            text = f"{len(found)} numbers, {min(found):g} to {max(found):g}: {text}"
    return [f" {name}: {text}"]


def made_by(nb: NotebookNode, tag: str = "real") -> NotebookNode | None:
    """The cell that leaves `result`, or the one with another tag."""
    return next((cell for cell in code_cells(nb) if tag in tags(cell)), None)


def makers(nb: NotebookNode, tag: str = "real") -> list[NotebookNode]:
    """The code cells up to the one with the tag."""
    cells, last = code_cells(nb), made_by(nb, tag)
    return cells[: next(i for i, cell in enumerate(cells) if cell is last) + 1]


def comparing(nb: NotebookNode) -> list[NotebookNode]:
    """The code cells from the one tagged `real` to the end of the section "On a real model"."""

    def is_another_section(cell: NotebookNode) -> bool:
        return cell.source.startswith("## ") and "On a real model" not in cell.source

    after = nb.cells[nb.cells.index(made_by(nb)) + 1 :]
    end = next(i for i, cell in enumerate(after) if is_another_section(cell))
    return [cell for cell in after[:end] if cell.cell_type == "code"]


def hash_of_makers(nb: NotebookNode, tag: str = "real") -> str:
    """A hash of the cells that the result depends on."""
    sources = "\0".join(cell.source for cell in makers(nb, tag))
    return hashlib.sha256(sources.encode()).hexdigest()[:16]


def result_file(nb: NotebookNode, kind: str = SMOLLM2) -> Path:
    """Where the result is stored: the lesson reads it with `read_result("its topic")`."""
    sources = "\n".join(cell.source for cell in code_cells(nb))
    [topic] = set(re.findall(r'read_result\("(\w+)"\)', sources))
    return ROOT / "tutorial_utils" / "lessons" / topic / f"{kind}.json"


def store(nb: NotebookNode, result: Any, kind: str = SMOLLM2) -> None:
    """Write a result with the hash of the cells that it rests on."""
    stored = {"cells": hash_of_makers(nb, TAG_OF[kind]), "result": result}
    text = json.dumps(stored, ensure_ascii=False, separators=(",", ":"))
    result_file(nb, kind).write_text(text + "\n", encoding="utf-8")


def stored_result(nb: NotebookNode) -> Any:
    """What was stored of SmolLM2."""
    return json.loads(result_file(nb).read_text(encoding="utf-8"))["result"]


async def run(
    nb: NotebookNode, path: Path, model: str, tag: str = "real", wanted: str = "result"
) -> Any:
    """Run the cells up to the one with this tag, and return the value of `wanted` after them.

    On a model of the reader's, the cells that compare its result run too.
    """
    client = StrictClient(nb, SECONDS, path.name)
    # The shipped model gains nothing from a second thread.
    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2")} if model else {}
    environment, cells = kernel_environment(TUTORIAL_MODEL=model, **threads), makers(nb, tag)
    if model not in (SMOLLM2, ""):  # it may have to be fetched, and may run on a GPU
        del environment["HF_HUB_OFFLINE"], environment["HF_HUB_CACHE"]
        cells += comparing(nb)
    async with client.async_setup_kernel(cwd=str(path.parent), env=environment):
        for cell in cells:
            await client.async_execute_cell(cell, nb.cells.index(cell))
        return rounded(json.loads(await client.ask(f"__import__('json').dumps({wanted})")))


def rounded(value: Any) -> Any:
    """The same with numbers cut to a few digits, so that other machines give the same file."""
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    if isinstance(value, list):
        return [rounded(part) for part in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


if __name__ == "__main__":
    sys.exit(main())
