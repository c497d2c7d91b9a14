"""A machine with all that the series needs; each test takes something away."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import tiny_models
from tutorial_utils.doctor import check as doctor_check
from tutorial_utils.doctor import machine, model, report
from tutorial_utils.doctor.check import Check
from tutorial_utils.models import load, memory

VERSIONS = {
    "torch": "2.13.0+cpu",
    "numpy": "2.1.0",
    "jupyterlab": "4.6.1",
    "ipywidgets": "8.1.9",
    "jupyterlab_widgets": "3.0.16",
}
VARIABLES = ("RUNPOD_POD_ID", "COLAB_RELEASE_TAG", "VSCODE_PID", "CUDA_VISIBLE_DEVICES")


@pytest.fixture(scope="session")
def llama(tmp_path_factory) -> Path:
    return tiny_models.make_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture
def installed(monkeypatch) -> Callable[..., None]:
    """Pretend that these are the installed versions (None: not there) and what they should be."""

    def pretend(python=">=3.10", requires=("torch>=2.4,<3", "numpy>=1.26"), **changed):
        versions = {**VERSIONS, **changed}

        def version(name):
            if versions.get(name) is None:
                raise metadata.PackageNotFoundError(name)
            return versions[name]

        told = SimpleNamespace(
            metadata=lambda name: {"Requires-Python": python},
            requires=lambda name: list(requires),
            version=version,
            PackageNotFoundError=metadata.PackageNotFoundError,
        )
        for module in (report, doctor_check):
            monkeypatch.setattr(module, "metadata", told)

    return pretend


@pytest.fixture(autouse=True)
def a_good_machine(llama, installed, monkeypatch) -> None:
    monkeypatch.setattr(load, "POCKET_LLAMA", llama)
    monkeypatch.setattr(model, "top_tokens", lambda *args: [(" McDonald", 0.99)])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for module in (memory, machine):
        monkeypatch.setattr(module, "free_memory", lambda device: 8 * 2**30)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 2**40))
    monkeypatch.setattr(shutil, "which", lambda program: None)
    monkeypatch.setattr(machine, "BOXES", machine.BOXES[:2])  # the two told by a variable
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    installed()


@pytest.fixture
def find() -> Callable[[str], Check]:
    """Gives the one line of the report about something."""

    def line(what: str) -> Check:
        [found] = [found for found in report.check_machine() if found.what == what]
        return found

    return line
