"""The files that Binder and GitHub Codespaces read: they name what is there, and what works."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import project_file

ROOT = Path(__file__).resolve().parents[1]
BINDER = ROOT / ".binder"


def test_binder_reads_the_same_two_files_as_set_up():
    """pip reads the paths from .binder, and `-e` from the folder above, where Binder runs it."""
    lines = (BINDER / "requirements.txt").read_text(encoding="utf-8").splitlines()
    read = dict(line.split() for line in lines if line.startswith(("-r ", "-c ")))
    assert {k: (BINDER / v).resolve() for k, v in read.items()} == {
        "-r": ROOT / "requirements.txt",
        "-c": ROOT / "constraints.txt",
    }
    asked = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in asked if line[0] != "#"] == [f"-e .[{','.join(project_file.EXTRAS)}]"]


def test_binder_takes_no_other_file_for_the_environment():
    """With one of these in .binder, repo2docker would build from it and not from pip's."""
    allowed = {"requirements.txt", "runtime.txt", "start"}
    assert {path.name for path in BINDER.iterdir()} == allowed


def test_binder_starts_kernels_with_one_thread():
    start = BINDER / "start"
    assert os.access(start, os.X_OK)
    command = [start, "sh", "-c", 'echo "$OMP_NUM_THREADS" "$1"', "sh", "two words"]
    assert subprocess.check_output(command, text=True) == "1 two words\n"


def test_what_the_codespace_is_told_to_do_can_be_done():
    config = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text(encoding="utf-8"))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    # Not postCreateCommand: the editor does not wait for that one, and prebuilds leave it out.
    command, target = config["updateContentCommand"].split()
    assert command == "make" and re.search(rf"^{target}:", makefile, re.MULTILINE)
    assert f"PORT ?= {config['forwardPorts'][0]}\n" in makefile
    for name in config["customizations"]["codespaces"]["openFiles"]:
        assert (ROOT / name).exists()
    python = config["customizations"]["vscode"]["settings"]["python.defaultInterpreterPath"]
    assert python == "${containerWorkspaceFolder}/.venv/bin/python"
