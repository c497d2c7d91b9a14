"""What kernels are given, for `make lab` and for all that runs notebooks."""

from __future__ import annotations

import socket
import uuid
from pathlib import Path

import zmq
from jupyter_client import KernelManager
from jupyter_core.paths import jupyter_runtime_dir


def kernel_settings() -> dict[str, str]:
    """Settings of jupyter's `KernelManager` that keep other users from reading messages to kernels.

    If possible, the sockets are files in Jupyter's runtime folder (IPC), which only the user can
    open. Otherwise the connection is TCP, encrypted if this jupyter_client supports it; without
    encryption ipykernel warns at each start.
    """
    if can_hold_sockets(Path(jupyter_runtime_dir())):
        return {"transport": "ipc"}
    if "transport_encryption" in KernelManager.class_trait_names() and zmq.has("curve"):
        return {"transport_encryption": "auto"}
    return {}


def can_hold_sockets(folder: Path) -> bool:
    """Whether a kernel's sockets can be files in this folder.

    They cannot on Windows and on some network drives, nor if the path is longer than sockets allow:
    107 bytes on Linux, 103 on macOS.
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


def model_for_kernels(name: str) -> str:
    """The value of TUTORIAL_MODEL for a kernel.

    A path is made absolute, because a kernel works in the folder of its notebook.
    """
    path = Path(name.strip()).expanduser()
    is_path = name.strip() not in ("", "smollm2", "pocket-llama") and path.exists()
    return str(path.resolve()) if is_path else name
