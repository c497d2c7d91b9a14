"""Reads the lessons, and runs notebooks so that no error in them can hide."""

from __future__ import annotations

import ast
import copy
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
LESSONS = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))

# What one lesson may take on 2 cores, in seconds: the kernel's start, the imports and every cell.
# Counted by the clock or by the processor time of the kernel, whichever is less, so that a lesson
# does not fail because something else keeps the machine busy. By the clock it is stopped after
# three times as long. A slower machine sets NOTEBOOK_SECONDS=60.
NOTEBOOK_SECONDS = float(os.environ.get("NOTEBOOK_SECONDS", 20))
ALL_NOTEBOOKS_SECONDS = 6 * NOTEBOOK_SECONDS

TRACEBACK = "Traceback (most recent call last)"
COLOURS = re.compile(r"\x1b\[[0-9;]*m")

# What a lesson's file says about itself, beside the cells and a hash of them.
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
# What a cell says about itself: what the tests need to know, and what the slides show of it.
KEPT = ("tags", "slideshow")
WIDGET_MIME = "application/vnd.jupyter.widget-view+json"

# Run after the last cell: what it left running in the background fails now or is forgotten.
SETTLE = """
import asyncio, gc, sys, threading, time
for thread in threading.enumerate():
    if thread is not threading.current_thread() and not thread.daemon:
        thread.join(1)
await asyncio.sleep(0.1)
gc.collect()
sys.stderr.flush()
"""


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


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
        # has to wait for a busy core: lesson 03 took 10 s with one, 137 s with two, beside others.
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_CACHE": str(ROOT / "build" / "no-models-here"),
        **extra,
    }


class StrictClient(NotebookClient):
    """nbclient, but an error that was swallowed on the way stops the notebook like any other.

    `interact`, `interactive_output` and `Output` turn an exception in a callback into a message,
    threads and tasks print theirs to stderr after the cell has ended. All of it passes through the
    channel that is watched here. The kernel is killed at the end, not asked to leave.
    """

    last_took = 0.0  # seconds, as NOTEBOOK_SECONDS counts them, of the last notebook that ended

    def __init__(self, nb: NotebookNode, seconds: float = NOTEBOOK_SECONDS, **kwargs: Any) -> None:
        kwargs |= {
            "shutdown_kernel": "immediate",
            "raise_on_iopub_timeout": True,
            "extra_arguments": ["--log-level=ERROR"],
        }
        super().__init__(nb, **kwargs)
        self.seconds = seconds
        self.started = monotonic()
        self.timeout_func = lambda cell: max(0.1, 3 * seconds - (monotonic() - self.started))
        self.swallowed: list[str] = []

    async def async_start_new_kernel(self, **kwargs: Any) -> None:
        await super().async_start_new_kernel(**{"env": kernel_environment(), **kwargs})

    async def async_start_new_kernel_client(self) -> Any:
        kernel_client = await super().async_start_new_kernel_client()
        get_msg = kernel_client.iopub_channel.get_msg

        async def get_watched_msg(*args: Any, **kwargs: Any) -> dict[str, Any]:
            msg = await get_msg(*args, **kwargs)
            self.swallowed.extend(t for t in _tracebacks(msg) if t not in self.swallowed)
            return msg

        kernel_client.iopub_channel.get_msg = get_watched_msg
        return kernel_client

    async def async_execute_cell(
        self, cell: NotebookNode, cell_index: int, **kwargs: Any
    ) -> NotebookNode:
        try:
            cell = await super().async_execute_cell(cell, cell_index, **kwargs)
        except CellTimeoutError as error:
            reason = f"the notebook was not done after {3 * self.seconds:g} s"
            raise CellTimeoutError(f"{reason}\n{error}") from None
        except CellExecutionError:
            self.swallowed.clear()  # the same error, not swallowed after all
            raise
        if self.allow_errors or "raises-exception" in tags(cell):
            self.swallowed.clear()
        is_last = cell_index == len(self.nb.cells) - 1
        took = await self.settle() if is_last else 0
        if self.swallowed:
            self._fail(cell if cell.cell_type == "code" else code_cells(self.nb)[-1])
        if took > self.seconds:
            raise CellTimeoutError(f"the notebook took {took:.1f} s: {self.seconds:g} s at most")
        return cell

    async def settle(self) -> float:
        """Waits for what was left running in the background; gives what the notebook took."""
        processor = await self.ask("time.process_time()", first=SETTLE)
        StrictClient.last_took = min(monotonic() - self.started, processor)
        return StrictClient.last_took

    async def ask(self, question: str, first: str = "") -> Any:
        """The value of an expression in the kernel, with no trace in the notebook."""
        reply = await self.kc.execute_interactive(
            first,
            silent=True,
            store_history=False,
            user_expressions={"answer": question},
            output_hook=lambda msg: None,
            timeout=60 + 3 * self.seconds,
        )
        answer = reply["content"]["user_expressions"]["answer"]
        if answer["status"] != "ok":
            raise RuntimeError("\n".join(answer["traceback"]))
        return ast.literal_eval(answer["data"]["text/plain"])

    def _fail(self, cell: NotebookNode) -> None:
        """Puts the swallowed error among the cell's outputs, where nbmake looks for it."""
        lines = "\n".join(self.swallowed).strip().split("\n")
        self.swallowed.clear()
        error = {"ename": "SwallowedError", "evalue": COLOURS.sub("", lines[-1])}
        cell.outputs.append(nbformat.v4.new_output("error", traceback=lines, **error))
        raise CellExecutionError.from_cell_and_msg(cell, {**error, "traceback": lines})


def _tracebacks(msg: dict[str, Any]) -> Iterator[str]:
    """The tracebacks in a message of the kernel, whether its own or in a widget's state."""
    content = msg["content"]
    state = content.get("data", {}).get("state", {}) if msg["msg_type"] == "comm_msg" else {}
    for kind, output in [
        (msg["msg_type"], content),
        *((output.get("output_type"), output) for output in state.get("outputs", ())),
    ]:
        if kind == "error":
            yield "\n".join(output["traceback"])
        elif kind == "stream" and output["name"] == "stderr" and TRACEBACK in output["text"]:
            yield output["text"]


def are_too_slow(seconds: dict[str, float]) -> bool:
    """Whether the lessons together took longer than they may."""
    return sum(seconds.values()) > ALL_NOTEBOOKS_SECONDS


def tell_seconds(seconds: dict[str, float]) -> list[str]:
    """What each lesson took of what it may take, a line for each and one for all."""
    lines = [f"{took:6.1f} s of {NOTEBOOK_SECONDS:g}  {name}" for name, took in seconds.items()]
    verdict = "TOO SLOW" if are_too_slow(seconds) else "together"
    return [*lines, f"{sum(seconds.values()):6.1f} s of {ALL_NOTEBOOKS_SECONDS:g}  {verdict}"]


def watch_nbmake() -> None:
    """Makes nbmake run its notebooks with `StrictClient`."""
    from nbmake import nb_run

    nb_run.NotebookClient = StrictClient
