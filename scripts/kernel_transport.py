"""How kernels are talked to, by `make lab` and by the tests that run notebooks."""

from __future__ import annotations

import socket
import uuid
from pathlib import Path

import zmq
from jupyter_client import KernelManager
from jupyter_core.paths import jupyter_runtime_dir


def kernel_settings() -> dict[str, str]:
    """Settings of jupyter's `KernelManager` with which nobody else can read what a kernel is sent.

    IPC: the sockets are files in Jupyter's runtime folder, which only the user can open. Where that
    cannot be, TCP, encrypted where this jupyter_client can: if not, ipykernel warns at each start.
    """
    if takes_sockets(Path(jupyter_runtime_dir())):
        return {"transport": "ipc"}
    if "transport_encryption" in KernelManager.class_trait_names() and zmq.has("curve"):
        return {"transport_encryption": "auto"}
    return {}


def takes_sockets(folder: Path) -> bool:
    """Whether a kernel's sockets can be files in this folder.

    Not on Windows, not on every network drive, and not where the path gets longer than a socket's
    may be: 107 bytes on Linux, 103 on macOS.
    """
    path = folder / f"kernel-{uuid.uuid4()}-ipc-99"  # as jupyter_client names them
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with socket.socket(socket.AF_UNIX) as trial:
            trial.bind(str(path))
    except (AttributeError, OSError):
        return False
    path.unlink()
    return True
