"""Makes `.venv` with what the notebooks and the tests need. `make lab` and `make test` call it.

It needs nothing but Python. Where `.venv` is ready it ends at once. `.venv/set-up.txt` says for
which folder, Python and files `.venv` was made; while a set-up is under way it says that, and the
next run starts again from nothing.
"""

import sys

if sys.version_info < (3, 10):  # noqa: UP036 (the machine's Python may be too old for the series)
    sys.exit(
        f"{sys.executable} is Python {sys.version.split()[0]}. The series needs 3.10 or newer.\n"
        "Name another one that is on this machine, for example: make lab PYTHON=python3.12"
    )

import argparse
import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import time
from pathlib import Path

from choose_torch import (
    CPU_INDEX,
    MachineTorch,
    Plan,
    constraints_for,
    find_machine_torch,
    plan_torch,
)

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
STATE = VENV / "set-up.txt"
UNDER_WAY = "under way\n"
# Settings made for the machine's own Python and pip, which would lead them astray in `.venv`.
NOT_FOR_VENV = {"PIP_CONSTRAINT", "PIP_PREFIX", "PIP_TARGET", "PIP_USER", "PYTHONHOME"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dry-run", action="store_true", help="say where torch would come from")
    dry_run = parser.parse_args().dry_run
    if Path(sys.prefix).resolve() == VENV:  # `.venv` is active, and may have to be made again
        os.execv(sys._base_executable, [sys._base_executable, *sys.argv])
    folder = os.open(ROOT, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)  # `make lab` and `make test` at once: the second one waits
    if not dry_run and is_ready():
        return
    check_venv_module()
    machine = find_machine_torch()
    plan = plan_torch(machine, read("pyproject.toml"), read("constraints.txt"))
    print(f"torch: {plan.reason}", flush=True)
    if not dry_run:
        set_up(plan, machine)


def set_up(plan: Plan, machine: MachineTorch | None) -> None:
    started = time.monotonic()
    if not can_be_kept():
        if VENV.exists():
            print("The .venv here is not whole, or has been moved: it is made again.", flush=True)
            shutil.rmtree(VENV)
        VENV.mkdir()
        STATE.write_text(UNDER_WAY)
        make_venv(plan)
    STATE.write_text(UNDER_WAY)
    install(plan, machine)
    version = venv_python_version()
    if not version:
        sys.exit("pip reported no error, but .venv does not work. Run: rm -rf .venv")
    STATE.write_text(describe(version))
    seconds = time.monotonic() - started
    print(f"Set-up took {seconds:.0f} s. .venv takes {size_gb(VENV):.2f} GB.", flush=True)


def is_ready() -> bool:
    return STATE.exists() and STATE.read_text() == describe(venv_python_version())


def can_be_kept() -> bool:
    """Whether pip can go on in the `.venv` that is there: it works, is whole, and has not moved."""
    if STATE.exists():
        return STATE.read_text().startswith(f"folder {VENV}\n") and bool(venv_python_version())
    if VENV.exists() and not run_in_venv("-m", "pip", "--version"):  # not ours to throw away
        sys.exit(f"{VENV} is there, and was not made by make. Move it away first.")
    return VENV.exists()


def describe(python_version: str) -> str:
    """What set-up.txt says of a `.venv` that is ready."""
    files = ["requirements.txt", "constraints.txt", "pyproject.toml"]
    digest = hashlib.sha256("\0".join(map(read, files)).encode()).hexdigest()
    return f"folder {VENV}\npython {python_version or 'broken'}\nfiles {digest}\n"


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def venv_python_version() -> str:
    """The version of `.venv`'s Python, such as "3.11"; empty where something is missing there."""
    code = (
        "import importlib.util, sys; print('%d.%d' % sys.version_info[:2]); "
        "names = ['pip', 'torch', 'jupyterlab', 'pytest', 'tutorial_utils']; "
        "sys.exit(not all(map(importlib.util.find_spec, names)))"
    )
    return run_in_venv("-c", code)


def run_in_venv(*arguments: str) -> str:
    """What `.venv`'s Python prints; empty where it fails or does not start."""
    try:
        command = [VENV / "bin/python", *arguments]
        result = subprocess.run(command, cwd=VENV, capture_output=True, text=True)
    except OSError:
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""


def check_venv_module() -> None:
    """Debian and Ubuntu keep a part of Python's venv in a package of its own."""
    if importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip"):
        return
    number = ".".join(map(str, sys.version_info[:2]))
    is_debians = os.path.realpath(sys.executable) == os.path.realpath("/usr/bin/python3")
    package = "python3-venv" if is_debians else f"python{number}-venv"
    sudo = "" if os.geteuid() == 0 else "sudo "
    sys.exit(
        f"Python {number} is here, but not the part of it that makes virtual environments.\n"
        f"On Debian and Ubuntu that is the package {package}. Install it:\n\n"
        f"    {sudo}apt-get update && {sudo}apt-get install -y {package}\n\n"
        "Then give the same make command again."
    )


def make_venv(plan: Plan) -> None:
    options = ["--system-site-packages"] if plan.source == "machine" else []
    command = [sys.executable, "-m", "venv", *options, VENV]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if result.returncode != 0:
        sys.exit(f"{result.stdout}\n.venv could not be made: Python's own message is above.")
    if plan.source == "machine" and sys.prefix != sys.base_prefix:
        # The machine's Python is in a venv itself, and --system-site-packages looks past that one.
        folders = [p for p in sys.path if p.startswith(sys.prefix) and p.endswith("-packages")]
        lines = "".join(f"import site; site.addsitedir({folder!r})\n" for folder in folders)
        (next(VENV.glob("lib/python*/site-packages")) / "machine_packages.pth").write_text(lines)


def install(plan: Plan, machine: MachineTorch | None) -> None:
    pins = VENV / "constraints.txt"
    pins.write_text(constraints_for(plan, machine, read("constraints.txt")), encoding="utf-8")
    if plan.source == "cpu index":  # torch alone: the rest comes from where pip is set to look
        pip_install("--no-deps", "--extra-index-url", CPU_INDEX, "torch")
    if not pip_install("-r", "requirements.txt"):
        sys.exit(
            "\npip could not get everything: its own message is above. Give the same make command\n"
            "again: what was downloaded is kept. docs/troubleshooting.md has the usual causes."
        )


def pip_install(*arguments: str) -> bool:
    environment = {name: v for name, v in os.environ.items() if name not in NOT_FOR_VENV}
    command = [VENV / "bin/python", "-m", "pip", "install", "--disable-pip-version-check"]
    command += ["-c", ".venv/constraints.txt", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment).returncode == 0


def size_gb(folder: Path) -> float:
    """What the folder takes on the disk, in GB (10^9 bytes)."""
    files = (os.path.join(parent, name) for parent, _, names in os.walk(folder) for name in names)
    return sum(os.lstat(path).st_blocks for path in files) * 512 / 1e9


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nStopped. Give the same make command again: set-up starts afresh.")
