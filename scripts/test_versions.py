"""Runs the tests and the notebooks on old and new versions: `make test-versions`.

    python scripts/test_versions.py                       oldest, between and newest
    python scripts/test_versions.py oldest tests/models/test_load.py    one of them, and these tests only

Each set of versions gets an environment of its own in `.versions/`, which git ignores and which is
kept for the next run; `rm -rf .versions` makes them anew. Prints a row for docs/versions.md for
each, and ends with 1 if a test failed or a set could not be made.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import date
from pathlib import Path

from choose_torch import CPU_INDEX, cpu_index_answers, has_nvidia_gpu
from setup_env import NOT_FOR_VENV

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".versions"
TESTED = ["tests", "notebooks"]
SHOWN = ["torch", "transformers", "accelerate", "numpy", "ipywidgets"]


def oldest(requirements: str) -> str:
    """Constraints that take, of each package, the oldest version that requirements.txt admits."""
    found = re.findall(r"^([\w-]+)>=(\d+)\.?([\d.]*)", requirements, re.MULTILINE)
    return "".join(f"{name}=={first}.{rest or 0}.*\n" for name, first, rest in found)


def constraints(name: str) -> str:
    """What pip is told, beside requirements.txt, to get the set of versions called `name`."""
    requirements = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    return {
        "oldest": oldest(requirements),
        "between": "transformers==4.57.*\ntorch==2.13.*\n",
        "newest": "",
    }[name]


def make(name: str) -> Path:
    """The Python of an environment with this set of versions, made where it is missing."""
    folder = FOLDER / name
    pins, python = folder / "constraints.txt", folder / "bin/python"
    if pins.exists() and pins.read_text(encoding="utf-8") == constraints(name):
        return python
    # TEST_PYTHON_OLDEST=python3.10 picks the Python of one set.
    base = os.environ.get(f"TEST_PYTHON_{name.upper()}", sys.executable)
    subprocess.run([base, "-m", "venv", "--clear", folder], check=True)
    asked = folder / "asked.txt"
    asked.write_text(constraints(name), encoding="utf-8")
    command = [python, "-m", "pip", "install", "--disable-pip-version-check", "-U", "-q"]
    command += ["-r", "requirements.txt", "-c", asked]
    if sys.platform == "linux" and not has_nvidia_gpu() and cpu_index_answers():
        command += ["--extra-index-url", CPU_INDEX]
    environment = {key: value for key, value in os.environ.items() if key not in NOT_FOR_VENV}
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    asked.rename(pins)  # only now is the environment whole
    return python


def versions(python: Path) -> list[str]:
    """What is installed of the packages in the table, Python first."""
    code = (
        "import sys; from importlib.metadata import version; "
        f"print(sys.version.split()[0], *map(version, {SHOWN}))"
    )
    return subprocess.run([python, "-c", code], capture_output=True, text=True).stdout.split()


def test(python: Path, tested: list[str]) -> tuple[str, int]:
    """pytest's last line, in words, and its exit status."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tested]
    lines = []
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            lines += [line.strip(" =\n")] if line.strip() else []
    counts = re.findall(r"\d+ (?:passed|failed|skipped|errors?)", lines[-1] if lines else "")
    return ", ".join(counts) or "nothing was run", process.returncode


def main() -> int:
    arguments = sys.argv[1:]
    names = [name for name in ("oldest", "between", "newest") if name in arguments]
    tested = [argument for argument in arguments if argument not in names] or TESTED
    rows, failed = [], 0
    for name in names or ["oldest", "between", "newest"]:
        try:
            python = make(name)
        except (subprocess.CalledProcessError, OSError) as error:
            print(f"The environment {name!r} could not be made: {error}. pip's message is above.")
            print(f"No version for this Python? Name one: TEST_PYTHON_{name.upper()}=python3.11")
            failed = 1
            continue
        result, status = test(python, tested)
        rows.append([name, *versions(python), " ".join(tested), result, f"{date.today()}"])
        failed = failed or status
    print("\n| set | Python |", " | ".join(SHOWN), "| run | result | date |")
    print("|---" * (len(SHOWN) + 5) + "|")
    for row in rows:
        print("|", " | ".join(row), "|")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
