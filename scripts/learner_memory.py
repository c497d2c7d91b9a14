"""Measures how much memory one learner takes on a shared machine: JupyterLab, and each lesson.

    python scripts/learner_memory.py      (Linux; for docs/instructor-guide.md)

"most" is the largest amount that the process held. "its own" leaves out what processes share,
mostly the libraries of torch: thirty learners together hold those once.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import psutil

from notebook_tools import LESSONS, read
from strict_client import StrictClient

MIB = 2**20


async def of_lesson(path: Path) -> None:
    """Runs the lesson, and prints what its kernel holds before it ends."""
    nb = read(path)
    client = StrictClient(nb, 300, path.name)
    async with client.async_setup_kernel(cwd=str(path.parent)):
        for index, cell in enumerate(nb.cells):
            await client.async_execute_cell(cell, index)
        tell(path.stem, client.km.provisioner.pid)


def of_jupyterlab() -> None:
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--port=0", "--allow-root"]
    server = subprocess.Popen([*command, "--IdentityProvider.token=x"], stderr=subprocess.PIPE)
    for line in server.stderr:  # until it has printed its address, and so listens
        if b"token=" in line:
            break
    tell("JupyterLab", server.pid)
    server.kill()
    server.wait()


def tell(name: str, pid: int) -> None:
    status = Path(f"/proc/{pid}/status").read_text()
    most = next(int(line.split()[1]) for line in status.split("\n") if line.startswith("VmHWM"))
    own = psutil.Process(pid).memory_full_info().uss
    print(f"{name:32} most {most / 1024:6.0f} MiB, its own {own / MIB:6.0f} MiB", flush=True)


if __name__ == "__main__":
    of_jupyterlab()
    for lesson in LESSONS:
        asyncio.run(of_lesson(lesson))
