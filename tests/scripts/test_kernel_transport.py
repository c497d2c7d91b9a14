"""Kernels are talked to through files, or encrypted: no reader sees a warning that they are not."""

from __future__ import annotations

import shutil
import socket
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from jupyter_client import KernelManager

import kernel_transport
from kernel_transport import kernel_settings, model_for_kernels
from notebook_tools import new_notebook
from strict_client import StrictClient

TRANSPORT = "from ipykernel.kernelapp import IPKernelApp\napp = IPKernelApp.instance()\n"
TRANSPORT += "print(app.transport, bool(app.curve_publickey))"
has_curve = "transport_encryption" in KernelManager.class_trait_names()
has_files = hasattr(socket, "AF_UNIX")


@pytest.fixture
def runtime(monkeypatch):
    """A runtime folder with a path as short as a user's."""
    folder = tempfile.mkdtemp(dir="/tmp" if has_files else None)
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", folder)
    yield folder
    shutil.rmtree(folder)


def told() -> str:
    nb = new_notebook(TRANSPORT)
    StrictClient(nb).execute()
    return nb.cells[0].outputs[0].text


@pytest.mark.skipif(not has_files, reason="Windows has no sockets that are files")
def test_files_where_the_path_is_short(runtime):
    assert kernel_settings() == {"transport": "ipc"}
    assert told().startswith("ipc ")


@pytest.mark.skipif(not has_curve, reason="this jupyter_client does not encrypt")
@pytest.mark.parametrize("why", ["a long path", "Windows", "a folder that cannot be made"])
def test_encrypted_tcp_elsewhere(why, runtime, monkeypatch):
    if why == "Windows":
        monkeypatch.setattr(kernel_transport, "socket", SimpleNamespace(socket=socket.socket))
    else:
        tail = "x" * 60 if why == "a long path" else "a-file/runtime"
        Path(runtime, "a-file").touch()
        monkeypatch.setenv("JUPYTER_RUNTIME_DIR", f"{runtime}/{tail}")
    assert kernel_settings() == {"transport_encryption": "auto"}
    assert told() == "tcp True\n"


def test_a_kernel_is_given_the_whole_path_of_a_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("models/mine", "smollm2"):
        (tmp_path / folder).mkdir(parents=True)
    assert model_for_kernels("models/mine") == str(tmp_path / "models" / "mine")
    for name in ("", "smollm2", "pocket-llama", "owner/name", "no/such/folder"):
        assert model_for_kernels(name) == name
