"""Runs the tests and the notebooks on old and new versions: `make test-versions`.

    python scripts/version_sets.py                        oldest, between and newest
    python scripts/version_sets.py oldest tests/models    one of them, and these tests only

uv makes an environment for each set in `.versions/`. git ignores that folder, and the next run uses
it again. The exit status is 1 if a test failed or a set could not be made.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from choose_torch import cpu_index_answers

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".versions"
TESTED = ["tests", "notebooks"]
SETS = {
    "oldest": ["--resolution", "lowest-direct"],
    "between": ["transformers==4.57.*", "torch==2.13.*"],
    "newest": [],
}
# The oldest torch runs on Python 3.12 at most.
PYTHONS = {"oldest": "3.10"}
SHOWN = ["torch", "transformers", "accelerate", "numpy", "ipywidgets"]


def make(name: str) -> Path:
    """The Python of an environment with this set of versions.

    Raises:
        subprocess.CalledProcessError: uv could not make it, and has said why.
    """
    folder = FOLDER / name
    uv = [sys.executable, "-m", "uv"]
    # TEST_PYTHON_OLDEST=/path/to/python picks the Python of one set.
    python = os.environ.get(f"TEST_PYTHON_{name.upper()}", PYTHONS.get(name, sys.executable))
    subprocess.run(
        [*uv, "venv", "-q", "--allow-existing", "--seed", "--python", python, folder], check=True
    )
    command = [*uv, "pip", "install", "-q", "--upgrade", "--python", folder]
    command += ["--torch-backend", "auto"] if cpu_index_answers() else []
    subprocess.run([*command, "-r", "requirements.txt", *SETS[name]], cwd=ROOT, check=True)
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def run_tests(name: str, python: Path, tested: list[str]) -> int:
    """Prints the versions of the set, runs pytest, and returns its exit status."""
    code = (
        "import sys; from importlib.metadata import version; print(sys.argv[1], 'on Python', "
        f"sys.version.split()[0], *[f'{{name}} {{version(name)}}' for name in {SHOWN}])"
    )
    subprocess.run([python, "-c", code, name], check=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tested]
    return subprocess.run(command, cwd=ROOT, env=environment).returncode


def main() -> int:
    arguments = sys.argv[1:]
    names = [name for name in SETS if name in arguments]
    tested = [argument for argument in arguments if argument not in names] or TESTED
    ended_well = []
    for name in names or SETS:
        try:
            ended_well += [run_tests(name, make(name), tested) == 0]
        except subprocess.CalledProcessError:
            print(f"The set {name!r} could not be made: uv's own message is above.", flush=True)
            ended_well += [False]
    return 0 if all(ended_well) else 1


if __name__ == "__main__":
    sys.exit(main())
