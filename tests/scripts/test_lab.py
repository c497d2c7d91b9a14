"""`make lab`: the settings of the server, and a real one that is asked for the first lesson."""

from __future__ import annotations

import json
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
from types import SimpleNamespace

import pytest
from jupyter_client import BlockingKernelClient

import lab
from notebook_tools import LESSONS, ROOT

NO_DISPLAY = {"DISPLAY": "", "WAYLAND_DISPLAY": ""}
CODESPACE = {
    "CODESPACE_NAME": "octo-lamp-x7",
    "GITHUB_CODESPACES_PORT_FORWARDING_DOMAIN": "app.github.dev",
}


def options(monkeypatch: pytest.MonkeyPatch, **environment: str) -> set[str]:
    for name in ["IP", "PORT", *NO_DISPLAY, *CODESPACE]:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return set(lab.options("a-token"))


def test_loopback_unless_told_otherwise(monkeypatch):
    default = {"--ServerApp.ip=127.0.0.1", "--ServerApp.port=8888"}
    assert default <= options(monkeypatch)
    elsewhere = {"--ServerApp.ip=0.0.0.0", "--ServerApp.port=9999"}
    assert elsewhere <= options(monkeypatch, IP="0.0.0.0", PORT="9999")


def test_allows_root_only_to_root(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert "--ServerApp.allow_root=True" in options(monkeypatch)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "--ServerApp.allow_root=False" in options(monkeypatch)


def test_opens_a_browser_only_where_there_is_a_display(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    assert "--ServerApp.open_browser=False" in options(monkeypatch)
    assert "--ServerApp.open_browser=True" in options(monkeypatch, DISPLAY=":0")


def test_on_windows_a_browser_opens_and_nobody_is_root(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.delattr(os, "geteuid")
    expected = {"--ServerApp.open_browser=True", "--ServerApp.allow_root=False"}
    assert expected <= options(monkeypatch)


@pytest.mark.parametrize("platform", ["win32", "linux"])
def test_started_by_another_python_it_goes_on_in_venv(monkeypatch, tmp_path, platform):
    (tmp_path / "python").touch()
    monkeypatch.setattr(lab, "VENV", tmp_path)
    monkeypatch.setattr(lab, "PYTHON", tmp_path / "python")
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(sys, "argv", ["scripts/lab.py"])
    monkeypatch.setattr(lab.signal, "signal", lambda *_: None)
    commands = []
    ended = SimpleNamespace(returncode=3)
    monkeypatch.setattr(lab.subprocess, "run", lambda command: commands.append(command) or ended)
    monkeypatch.setattr(os, "execv", lambda _, command: commands.append(command) or sys.exit(3))
    with pytest.raises(SystemExit) as error:
        lab.in_venv()
    assert error.value.code == 3 and commands == [[tmp_path / "python", "scripts/lab.py"]]


def test_says_what_to_run_first_where_nothing_is_set_up(monkeypatch, tmp_path):
    monkeypatch.setattr(lab, "PYTHON", tmp_path / "none")
    monkeypatch.setattr(lab, "LabApp", None)
    with pytest.raises(SystemExit, match=r"First run: python scripts/setup_env\.py"):
        lab.in_venv()


def test_in_a_codespace_the_address_that_it_forwards_is_let_in_and_no_other(monkeypatch, capsys):
    assert not any("allow_remote" in o or "origin" in o for o in options(monkeypatch))
    there = options(monkeypatch, **CODESPACE)
    assert "--ServerApp.allow_remote_access=True" in there
    (pattern,) = [o.partition("=")[2] for o in there if "allow_origin_pat" in o]
    address = "https://octo-lamp-x7-8889.app.github.dev"
    assert re.match(pattern, address)
    for other in ["https://octo-lamp-y8-8889.app.github.dev", address + ".evil.example", "null"]:
        assert not re.match(pattern, other)
    url = "http://127.0.0.1:8889/lab/tree/a.ipynb?token=..."
    lab.print_address(SimpleNamespace(ip="127.0.0.1", port=8889, public_url=url), "a-token")
    assert f"    {address}/lab/tree/a.ipynb?token=a-token\n" in capsys.readouterr().out


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
        environment["TUTORIAL_MODEL"] = os.path.relpath(tmp_path)
        for name in ["JUPYTER_TOKEN", *CODESPACE]:
            environment.pop(name, None)
        log = tmp_path / "log.txt"
        with log.open("w") as file:
            command = [sys.executable, ROOT / "scripts/lab.py"]
            process = subprocess.Popen(command, env=environment, stdout=file, stderr=file)
        try:
            end = time.monotonic() + 300
            while not (found := re.search(r"http://\S+token=\w+\n", log.read_text())):
                assert process.poll() is None and time.monotonic() < end, log.read_text()
                time.sleep(0.1)
            assert f":{taken.getsockname()[1]}/" not in found[0]
            yield found[0].strip()
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
    assert page == f"/lab/tree/notebooks/{LESSONS[0].name}"
    assert status(server) == 200
    assert status(f"{host}/api/status?token={token}") == 200
    assert status(f"{host}/api/status") == 403
    assert status(f"{host}/api/contents{page.removeprefix('/lab/tree')}?token={token}") == 200


def test_nobody_is_asked_about_news_and_no_kernel_warns(server, tmp_path):
    """A kernel of ipykernel 7.4 warns where others could read what it is sent."""
    host, token = re.fullmatch(r"(http://[^/]+)/.*\?token=(\w+)", server).groups()

    def ask(path: str, data: bytes | None = None) -> dict:
        request = urllib.request.Request(f"{host}{path}?token={token}", data)
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)

    schema = ask("/lab/api/settings/@jupyterlab/apputils-extension:notification")["schema"]
    assert schema["properties"]["fetchNews"]["default"] == "false"
    assert ask("/lab/api/news") == {"news": []}
    assert ask("/lab/api/update") == {"notification": None}
    kernel = ask("/api/kernels", b"{}")["id"]
    (connection,) = tmp_path.rglob(f"kernel-{kernel}.json")
    client = BlockingKernelClient(connection_file=str(connection))
    client.load_connection_file()
    client.start_channels()
    client.wait_for_ready(timeout=120)
    names = ["OMP_WAIT_POLICY", "TUTORIAL_MODEL"]
    asked = {name: f"__import__('os').environ['{name}']" for name in names}
    reply = client.execute("", user_expressions=asked, reply=True, timeout=60)["content"]
    found = [reply["user_expressions"][name]["data"]["text/plain"] for name in names]
    assert found == ["'PASSIVE'", repr(str(tmp_path))]  # a kernel has another working folder
    client.stop_channels()
    assert "encrypt" not in (tmp_path / "log.txt").read_text()
