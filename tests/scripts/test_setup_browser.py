"""What `make test-browser` does where there is no browser, without installing any."""

from __future__ import annotations

import os
import subprocess
from types import SimpleNamespace

import pytest

import setup_browser


@pytest.fixture
def machine(monkeypatch):
    """A machine with Playwright and apt-get; `ran` has the commands that were run."""
    found = SimpleNamespace(programs={"apt-get"}, ran=[], returncode=0)

    def run(command, **options):
        found.ran.append(" ".join(command))
        return SimpleNamespace(returncode=found.returncode)

    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.setattr(setup_browser.importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(
        setup_browser.shutil, "which", lambda name: name if name in found.programs else None
    )
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return found


@pytest.mark.parametrize("name", ["chromium", "chromium-browser", "google-chrome"])
def test_a_browser_that_is_there_is_used(machine, name):
    machine.programs.add(name)
    setup_browser.main()
    assert setup_browser.find_browser() == name
    assert machine.ran == []


def test_root_on_debian_gets_one(machine):
    setup_browser.main()
    assert machine.ran[0] == "apt-get update -q"
    assert machine.ran[1].startswith("apt-get install -y") and "chromium" in machine.ran[1]


@pytest.mark.parametrize("change", [{"user": 1000}, {"programs": set()}])
def test_others_are_told_what_to_do(machine, monkeypatch, change):
    monkeypatch.setattr(os, "geteuid", lambda: change.get("user", 0))
    machine.programs = change.get("programs", machine.programs)
    with pytest.raises(SystemExit, match=r"sudo apt-get update .* install -y chromium"):
        setup_browser.main()
    assert machine.ran == []


def test_a_browser_named_by_hand(machine, monkeypatch):
    monkeypatch.setenv("CHROMIUM", "/opt/chrome")
    with pytest.raises(SystemExit, match="CHROMIUM is set to /opt/chrome, and there is no such"):
        setup_browser.main()
    machine.programs.add("/opt/chrome")
    setup_browser.main()
    assert setup_browser.find_browser() == "/opt/chrome"


def test_playwright_comes_at_the_pinned_version(machine, monkeypatch):
    machine.programs.add("chromium")
    monkeypatch.setattr(setup_browser.importlib.util, "find_spec", lambda name: None)
    setup_browser.main()
    (command,) = machine.ran
    assert "-c .venv/constraints.txt -r tests/browser/requirements.txt" in command


def test_a_failed_install_is_an_error(machine):
    machine.returncode = 1
    with pytest.raises(SystemExit, match="apt-get update -q failed"):
        setup_browser.main()
