"""Runs notebooks so that no error in them can hide, and no wait is endless."""

from __future__ import annotations

import ast
import asyncio
import atexit
import os
from collections.abc import Coroutine, Iterator
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import uuid4

import nbformat
import psutil
import zmq
from jupyter_core.paths import jupyter_runtime_dir
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError
from nbformat import NotebookNode
from traitlets.config import Config

from kernel_transport import kernel_settings
from notebook_tools import (
    COLOURS,
    code_cells,
    kernel_environment,
    name_cell,
    seconds_of,
    tags,
)

TRACEBACK = "Traceback (most recent call last)"
# How many seconds to wait for an answer while the kernel is idle, and the length of one step of the
# wait. Below 2% of a core a kernel counts as idle, because even an idle one does a little work.
IDLE_SECONDS = 60
STEP = 0.5
IDLE_SHARE = 0.02

# Run after the last cell, so that errors of threads and tasks in the background show up now.
SETTLE = """
import asyncio, gc, sys, threading, time
for thread in threading.enumerate():
    if thread is not threading.current_thread() and not thread.daemon:
        thread.join(1)
await asyncio.sleep(0.1)
gc.collect()
sys.stderr.flush()
"""


class IdleKernelError(CellTimeoutError):
    """The kernel has been idle for too long without an answer."""


class StrictClient(NotebookClient):
    """nbclient, but errors that would be swallowed stop the notebook too.

    `interact`, `interactive_output` and `Output` turn an exception in a callback into a message.
    Threads and tasks print theirs to stderr after the cell has ended. All these messages pass
    through the iopub channel, which is watched here. At the end the kernel is killed.

    No wait is endless: after a minute of an idle kernel comes an error with `name` and the cell.
    """

    last_took = 0.0  # seconds that the last notebook took, counted like NOTEBOOK_SECONDS

    def __init__(
        self, nb: NotebookNode, seconds: float | None = None, name: str = "", **kwargs: Any
    ) -> None:
        name = name or os.environ.get("PYTEST_CURRENT_TEST", "the notebook").split("::")[0]
        seconds = seconds_of(name) if seconds is None else seconds
        kwargs |= {
            "shutdown_kernel": "immediate",
            "raise_on_iopub_timeout": True,
            "iopub_timeout": int(3 * seconds) + 1,  # IDLE_SECONDS comes first
            "extra_arguments": ["--log-level=ERROR"],
            "config": Config(KernelManager=kernel_settings()),
        }
        super().__init__(nb, **kwargs)
        self.seconds = seconds
        self.name = name
        self.cell: NotebookNode | None = None  # the last code cell that was begun
        self.started = monotonic()
        self.timeout_func = lambda cell: max(0.1, 3 * seconds - (monotonic() - self.started))
        self.swallowed: list[str] = []

    def create_kernel_manager(self) -> Any:
        manager = super().create_kernel_manager()
        if manager.transport == "ipc":  # the sockets are in the same folder
            manager.connection_file = str(Path(jupyter_runtime_dir(), f"kernel-{uuid4()}.json"))
        return manager

    async def async_start_new_kernel(self, **kwargs: Any) -> None:
        """Starts a kernel and waits until it answers. If it does not, tries once more."""
        for is_last in (False, True):
            try:
                await super().async_start_new_kernel(**{"env": kernel_environment(), **kwargs})
                await self.async_start_new_kernel_client()
                return
            except Exception:
                if is_last:
                    atexit.unregister(self._cleanup_kernel)  # no kernel is running
                    raise
                self.km = self.create_kernel_manager()

    async def async_start_new_kernel_client(self) -> Any:
        kernel_client = await super().async_start_new_kernel_client()
        get_msg = kernel_client.iopub_channel.get_msg

        async def get_watched_msg(*args: Any, **kwargs: Any) -> dict[str, Any]:
            msg = await get_msg(*args, **kwargs)
            self.swallowed.extend(t for t in _tracebacks(msg) if t not in self.swallowed)
            return msg

        kernel_client.iopub_channel.get_msg = get_watched_msg
        return kernel_client

    async def async_wait_for_reply(self, *args: Any, **kwargs: Any) -> Any:
        return await self._watch(super().async_wait_for_reply(*args, **kwargs))

    async def async_execute_cell(
        self, cell: NotebookNode, cell_index: int, **kwargs: Any
    ) -> NotebookNode:
        self.cell = cell if cell.cell_type == "code" else self.cell
        try:
            cell = await self._watch(super().async_execute_cell(cell, cell_index, **kwargs))
        except IdleKernelError:
            raise
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
            self._fail(self.cell)
        if took > self.seconds:
            raise CellTimeoutError(f"the notebook took {took:.1f} s: {self.seconds:g} s at most")
        return cell

    async def _watch(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Awaits `work`; raises an error if the kernel is idle for too long before it ends.

        pyzmq's sockets under asyncio are edge-triggered: a message is signalled once, and the next
        use of the socket takes the signal. nbclient sends the content of an `Output` on the socket
        on which it waits for the cell's reply, without asyncio (jupyter_client's `Session.send`
        shadows the socket). If a reply has just arrived, it then stays unseen during the whole
        wait: 7 times in 400 cells on a busy machine, over both TCP and IPC. (ipykernel 7.0 to 7.3
        loses requests in the same way.) So each step asks the sockets for their events, which makes
        asyncio look again.
        """
        others = asyncio.all_tasks()
        task = asyncio.ensure_future(work)
        idle, before = 0.0, self._processor_seconds()
        while not (await asyncio.wait([task], timeout=STEP))[0]:
            for channel in (self.kc.shell_channel, self.kc.iopub_channel):
                channel.socket.get(zmq.EVENTS)
            idle += STEP  # not by the clock, which goes on if this process is suspended
            now = self._processor_seconds()
            if now - before > IDLE_SHARE * IDLE_SECONDS:
                idle, before = 0.0, now
            if idle >= IDLE_SECONDS:
                left = asyncio.all_tasks() - others
                for started in left:
                    started.cancel()
                await asyncio.gather(*left, return_exceptions=True)
                raise self._idle_error()
        return task.result()

    def _processor_seconds(self) -> float:
        """The processor time of the kernel and of the processes that it started."""
        try:
            kernel = psutil.Process(self.km.provisioner.pid)
            times = [process.cpu_times() for process in (kernel, *kernel.children(recursive=True))]
        except psutil.Error:  # it has ended, which nbclient finds out too
            return 0.0
        return sum(sum(of_one[:4]) for of_one in times)

    def _idle_error(self) -> IdleKernelError:
        for cell in code_cells(self.nb):  # nbmake points at the first that has no reply
            cell.metadata.setdefault("execution", {})
        if self.cell:
            self.cell.metadata.execution.pop("shell.execute_reply", None)
        where = name_cell(self.nb, self.cell) if self.cell else "before its first cell"
        return IdleKernelError(
            f"{self.name}, {where}: no answer, and the kernel has been idle for {IDLE_SECONDS:g} s."
            " A message was lost, or the cell waits for something that does not come."
        )

    async def settle(self) -> float:
        """Waits for threads and tasks in the background; returns the seconds the notebook took."""
        processor = await self.ask("time.process_time()", first=SETTLE)
        StrictClient.last_took = min(monotonic() - self.started, processor)
        return StrictClient.last_took

    async def ask(self, question: str, first: str = "") -> Any:
        """The value of an expression in the kernel. The notebook does not change."""
        reply = await self._watch(
            self.kc.execute_interactive(
                first,
                silent=True,
                store_history=False,
                user_expressions={"answer": question},
                output_hook=lambda msg: None,
                timeout=60 + 3 * self.seconds,
            )
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


def watch_nbmake() -> None:
    """Makes nbmake run its notebooks with `StrictClient`."""
    from nbmake import nb_run

    nb_run.NotebookClient = StrictClient
