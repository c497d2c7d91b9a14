"""Runs lessons in place and makes their outputs ready to commit: `make notebooks`.

    python scripts/run_notebooks.py                                  all of notebooks/
    python scripts/run_notebooks.py notebooks/LESSON.ipynb  one

They run on the shipped model, on the CPU and without a network, whatever the machine has. Times,
versions and widget state are removed, because they change from run to run even if the lesson does
not. If a cell fails, the file stays as it was, and the exit status is 1.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import nbformat
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from notebook_tools import (
    HIDDEN,
    KEPT,
    LESSONS,
    METADATA,
    README_PICTURE,
    WIDGET_MIME,
    code_cells,
    hash_sources,
    join_streams,
    kernel_environment,
    lesson_on,
    picture_of_readme,
    read,
    tags,
    to_be_predicted,
)
from strict_client import StrictClient

SECONDS = 300  # a hang, not a slow machine
# For widgets that do not say themselves, in their plain text, what they are for.
INSTEAD_OF_WIDGET = "Widget: move its controls. Run this cell to use it."


def main() -> int:
    paths = [Path(argument).resolve() for argument in sys.argv[1:]] or LESSONS
    if not paths:
        print("There are no lessons in notebooks/.", file=sys.stderr)
        return 1
    failed = 0
    for path in paths:
        started = time.monotonic()
        try:
            nb = asyncio.run(run(path))
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            print(f"{path.name}: {error}", file=sys.stderr)
            failed += 1
            continue
        clean(nb)
        nbformat.write(nb, path)
        if path == lesson_on("start here"):
            README_PICTURE.write_bytes(picture_of_readme(nb)[0])
        print(f"{path.name}: {len(code_cells(nb))} cells, {time.monotonic() - started:.1f} s")
    return min(failed, 1)


async def run(path: Path) -> NotebookNode:
    """Runs a notebook and returns it with new outputs; the file is not changed."""
    nb = read(path)
    client = StrictClient(nb, SECONDS, path.name, record_timing=False)
    # CUDA_VISIBLE_DEVICES hides a GPU. An accelerator that cannot be hidden shows in the first
    # cell's output, and so in the diff.
    environment = kernel_environment(CUDA_VISIBLE_DEVICES="")
    async with client.async_setup_kernel(cwd=str(path.parent), env=environment):
        for index, cell in enumerate(nb.cells):
            count = sum(c.cell_type == "code" for c in nb.cells[: index + 1])
            await client.async_execute_cell(cell, index, execution_count=count)
    return nb


def clean(nb: NotebookNode) -> None:
    """Removes from a notebook that has run all that is of no use to a reader without a kernel."""
    nb.metadata = nbformat.from_dict({**METADATA, "outputs_of": hash_sources(nb)})
    for cell in nb.cells:
        kept = {key: cell.metadata[key] for key in KEPT if cell.metadata.get(key)}
        cell.metadata = nbformat.from_dict(kept)
    for cell in code_cells(nb):
        if "widget" not in tags(cell):  # a progress bar
            cell.outputs = [o for o in cell.outputs if WIDGET_MIME not in o.get("data", {})]
        cell.outputs = join_streams(cell.outputs)
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = cell.execution_count
            data = output.get("data", {})
            if WIDGET_MIME in data:
                del data[WIDGET_MIME]
                said = data["text/plain"] if data["text/plain"].startswith("Widget: ") else ""
                data["text/plain"] = said or INSTEAD_OF_WIDGET
                data.setdefault("text/html", f"<p><em>{data['text/plain']}</em></p>")
    for cell in to_be_predicted(nb):
        cell.metadata |= nbformat.from_dict(HIDDEN)


if __name__ == "__main__":
    sys.exit(main())
