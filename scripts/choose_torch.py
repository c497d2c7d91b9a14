"""Choose where torch is installed from: the machine's own Python, PyTorch's index, or pip's index.

setup_env.py uses this. It runs on the machine's own Python, with nothing installed.
"""

import importlib.metadata
import re
import shutil
import urllib.request
from pathlib import Path

CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def find_machine_torch() -> str | None:
    """The version of the machine's own torch if it is built for a GPU (CUDA or ROCm)."""
    try:  # by its files: importing it would take seconds, and fail without a driver
        torch = importlib.metadata.distribution("torch")
        version_file = Path(torch.locate_file("torch/version.py")).read_text()
    except (ImportError, OSError):
        return None
    is_for_gpu = re.search(r"^(cuda|hip)\b[^=]*= *['\"]\d", version_file, re.MULTILINE)
    return torch.version if is_for_gpu else None


def plan_torch(machine: str | None, oldest: str, pin: str, wheels: Path | None) -> tuple[str, str]:
    """Where torch comes from ("machine", "wheels", "pytorch" or "pip"), and a line that says why.

    `oldest` is the oldest version that the series runs on, such as "2.4". `pin` is the one that is
    installed otherwise, such as "torch==2.13.0", and `wheels` a folder to install it from.
    """
    what = pin
    if machine:
        found = f"This machine's Python has torch {machine} for its GPU"
        numbers, least = (tuple(map(int, v.split(".")[:2])) for v in (machine, oldest))
        is_preview = re.match(r"[\d.]+(a|b|rc|dev)", machine)  # 2.4.0rc1 is older than 2.4
        if numbers > least or (numbers == least and not is_preview):
            return "machine", f"{found}; .venv builds on it."
        what = f"{found}, but the series needs {oldest} or newer; .venv gets its own {pin}"
    if wheels:
        return "wheels", f"{what}, from {wheels}. (To use the network instead: make lab WHEELS=)"
    if cpu_index_answers():
        return "pytorch", f"{what}, from PyTorch's index: the build for this machine's GPU or CPU."
    return "pip", (
        f"{what}, from where pip is set to look: {CPU_INDEX} does not answer.\n"
        "It may be the build for GPUs, which is larger and runs here too."
    )


def has_nvidia_gpu() -> bool:
    return shutil.which("nvidia-smi") is not None or any(Path("/dev").glob("nvidia[0-9]*"))


def cpu_index_answers() -> bool:
    try:
        with urllib.request.urlopen(f"{CPU_INDEX}/torch/", timeout=5):
            return True
    except (OSError, ValueError):
        return False
