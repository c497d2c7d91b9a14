"""Choose where torch is installed from: the machine's own Python, PyTorch's index, or pip's index.

setup_env.py uses this. It runs on the machine's own Python, with nothing installed.
"""

import importlib.metadata
import re
import shutil
import sys
import urllib.request
from pathlib import Path
from typing import NamedTuple

CPU_INDEX = "https://download.pytorch.org/whl/cpu"


class MachineTorch(NamedTuple):
    """The torch that the machine's own Python has, built for CUDA or ROCm."""

    version: str
    needs: frozenset[str]  # torch, numpy, and all packages that they require, by name


def find_machine_torch(path: list[str] = sys.path) -> MachineTorch | None:
    """Finds torch by its files. Importing it would take seconds, and a broken torch would fail."""
    installed = {}
    for dist in importlib.metadata.distributions(path=path):
        installed.setdefault(_normalise(dist.metadata["Name"] or ""), dist)
    try:
        version_file = Path(installed["torch"].locate_file("torch/version.py")).read_text()
    except (KeyError, OSError):
        return None
    if not re.search(r"^(cuda|hip)\b[^=]*= *['\"]\d", version_file, re.MULTILINE):
        return None
    needs, to_visit = set(), ["torch", "numpy"]
    while to_visit:
        name = to_visit.pop()
        if name in installed and name not in needs:
            needs.add(name)
            to_visit += [_normalise(line) for line in installed[name].requires or []]
    return MachineTorch(installed["torch"].version, frozenset(needs))


def plan_torch(
    machine: MachineTorch | None, oldest: str, pinned: str, wheels: Path | None = None
) -> tuple[str, str]:
    """Where torch comes from ("machine", "wheels", "pytorch" or "pip"), and a line that says why.

    `oldest` is the oldest version that the series runs on, `pinned` the version that is installed
    otherwise, and `wheels` a folder of wheels to install it from.
    """
    what = pinned
    if machine:
        found = f"this machine's Python has torch {machine.version} for its GPU"
        if _at_least(machine.version, oldest):
            return "machine", f"{found}; .venv builds on it."
        what = f"{found}, but the series needs {oldest} or newer; .venv gets its own {pinned}"
    if wheels:
        return "wheels", f"{what}, from {wheels}. (To use the network instead: make lab WHEELS=)"
    if cpu_index_answers():
        return "pytorch", f"{what}, from PyTorch's index: the build for this machine's GPU or CPU."
    return "pip", (
        f"{what}, from the index that pip is set to use: {CPU_INDEX} does not answer.\n"
        "This may be the build for GPUs. It runs here too, but it is larger and takes longer to "
        "install."
    )


def constraints_for(machine: MachineTorch, constraints: str) -> str:
    """The pins for a `.venv` that uses the machine's torch: none changes torch or what it needs."""
    lines = [s for s in constraints.splitlines() if _normalise(s) not in machine.needs]
    return "\n".join([*lines, f"torch==={machine.version}", ""])


def has_nvidia_gpu() -> bool:
    return shutil.which("nvidia-smi") is not None or any(Path("/dev").glob("nvidia[0-9]*"))


def cpu_index_answers() -> bool:
    try:
        with urllib.request.urlopen(f"{CPU_INDEX}/torch/", timeout=5):
            return True
    except (OSError, ValueError):
        return False


def _normalise(requirement: str) -> str:
    """The name of the package in a requirement, in pip's normal form (lower case, hyphens)."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]*", requirement)[0]).lower()


def _at_least(version: str, oldest: str) -> bool:
    # "2.6.0" counts as "2.6", and a preview such as "2.6.0rc1" as older than it.
    numbers, preview = re.match(r"(\d+\.\d+)(?:\.0)?(a|b|rc|\.dev)?", version).groups()
    as_tuple = [tuple(map(int, text.split("."))) for text in (numbers, oldest)]
    return as_tuple[0] > as_tuple[1] or (numbers == oldest and not preview)
