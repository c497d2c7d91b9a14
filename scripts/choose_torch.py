"""Where torch comes from: the machine's own Python, PyTorch's index, or where pip is set to look.

Used by setup_env.py. It runs on the machine's own Python, with nothing installed.
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
    needs: frozenset[str]  # names of the packages it stands on, itself and numpy among them


def find_machine_torch(path: list[str] = sys.path) -> MachineTorch | None:
    """Looks without importing: that would take seconds, and may fail on a broken one."""
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
    """Decides: "machine", "wheels", "pytorch" or "pip", and why."""
    if machine:
        found = f"this machine's Python has torch {machine.version} for its GPU"
        if _at_least(machine.version, oldest):
            return "machine", f"{found}; .venv builds on it."
        pinned = f"{found}, but the series needs {oldest} or newer; .venv gets {pinned} of its own"
    if wheels:
        return "wheels", f"{pinned}, from {wheels}. (WHEELS= asks the network instead.)"
    if cpu_index_answers():
        return (
            "pytorch",
            f"{pinned}, from PyTorch's index: the build for this machine's GPU or CPU.",
        )
    return "pip", (
        f"{pinned}, from where pip is set to look: {CPU_INDEX} does not answer.\n"
        "This may be a build for GPUs: it runs as well, and takes longer and more disk."
    )


def constraints_for(machine: MachineTorch, constraints: str) -> str:
    """The pins for a `.venv` on the machine's torch: none touches it or what it stands on."""
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
    """The package's name at the start of a requirement, spelt as pip compares it."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]*", requirement)[0]).lower()


def _at_least(version: str, oldest: str) -> bool:
    numbers, preview = re.match(r"(\d+\.\d+)(?:\.0)?(a|b|rc|\.dev)?", version).groups()
    as_tuple = [tuple(map(int, text.split("."))) for text in (numbers, oldest)]
    return as_tuple[0] > as_tuple[1] or (numbers == oldest and not preview)
