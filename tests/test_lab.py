"""`make lab`: the server's settings, and a real server that is asked for the first lesson."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from traitlets.config import Config

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "scripts/lab_config.py"
NO_DISPLAY = {"DISPLAY": "", "WAYLAND_DISPLAY": ""}


def settings(monkeypatch: pytest.MonkeyPatch, **environment: str) -> Config:
    for name in ["IP", "PORT", "JUPYTER_TOKEN", *NO_DISPLAY]:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    config = Config()
    names = {"get_config": lambda: config, "__file__": str(CONFIG)}
    exec(compile(CONFIG.read_text(), str(CONFIG), "exec"), names)
    return config


def test_loopback_and_a_token_unless_told_otherwise(monkeypatch):
    first, second = settings(monkeypatch), settings(monkeypatch)
    assert (first.ServerApp.ip, first.ServerApp.port) == ("127.0.0.1", 8888)
    assert len(first.IdentityProvider.token) >= 32
    assert first.IdentityProvider.token != second.IdentityProvider.token
    elsewhere = settings(monkeypatch, IP="0.0.0.0", PORT="9999", JUPYTER_TOKEN="mine")
    assert (elsewhere.ServerApp.ip, elsewhere.ServerApp.port) == ("0.0.0.0", 9999)
    assert elsewhere.IdentityProvider.token == "mine"
    assert settings(monkeypatch, JUPYTER_TOKEN="").IdentityProvider.token != ""


def test_allows_root_only_to_root(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert settings(monkeypatch).ServerApp.allow_root is True
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert settings(monkeypatch).ServerApp.allow_root is False


def test_opens_a_browser_only_where_there_is_a_display(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    assert settings(monkeypatch).ServerApp.open_browser is False
    assert settings(monkeypatch, DISPLAY=":0").ServerApp.open_browser is True


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address that a real server prints, for a user whose own settings turn the token off."""
    (tmp_path / ".jupyter").mkdir()
    (tmp_path / ".jupyter/jupyter_server_config.py").write_text(
        "c.IdentityProvider.token = ''\nc.ServerApp.ip = '0.0.0.0'\n"
    )
    with socket.socket() as taken:  # so that the address printed is not the one asked for
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        environment = {**os.environ, **NO_DISPLAY, "PORT": str(taken.getsockname()[1])}
        environment |= {"HOME": str(tmp_path), "IP": "127.0.0.1"}
        environment.pop("JUPYTER_TOKEN", None)
        log = tmp_path / "log.txt"
        with log.open("w") as file:
            command = [sys.executable, "-m", "jupyterlab", f"--config={CONFIG}"]
            process = subprocess.Popen(command, env=environment, stdout=file, stderr=file, cwd=ROOT)
        try:
            end = time.monotonic() + 120
            while not (found := re.search(r"http://\S+token=\w+", log.read_text())):
                assert process.poll() is None and time.monotonic() < end, log.read_text()
                time.sleep(0.1)
            assert f":{taken.getsockname()[1]}/" not in found[0]
            yield found[0]
        finally:
            process.terminate()
            process.wait(timeout=60)


def status(address: str) -> int:
    try:
        with urllib.request.urlopen(address, timeout=60) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


def test_the_printed_address_opens_the_first_lesson(server):
    found = re.fullmatch(r"(http://127.0.0.1:\d+)(/lab/tree/\S+)\?token=(\w+)", server)
    host, page, token = found.groups()
    assert page == "/lab/tree/notebooks/00_start_here.ipynb"
    assert status(server) == 200
    assert status(f"{host}/api/status?token={token}") == 200
    assert status(f"{host}/api/status") == 403
    assert status(f"{host}/api/contents{page.removeprefix('/lab/tree')}?token={token}") == 200
