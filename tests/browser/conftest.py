"""A real JupyterLab and a real Chromium for the tests of the widgets: `make test-browser`.

The lessons are copied to a folder of their own and their outputs taken out, so that what is seen
was made in the test. Screenshots go to tests/browser/screenshots.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from lab_page import SCREENSHOTS, SECONDS, LabPage, Server
from notebook_tools import LESSONS, ROOT, kernel_environment, lesson_on, read
from setup_browser import find_browser
from tutorial_utils import load_model

# The second line keeps Chromium from asking for updates and the like, which the network may refuse.
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--force-color-profile=srgb"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
SECONDS_TO_START = 180
# How long a widget may take to follow, in milliseconds. A busy machine sets FOLLOW_MS=1000.
FOLLOW_MS = float(os.environ.get("FOLLOW_MS", 150))

follow_times: dict[str, list[float]] = {}


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[Server]:
    """JupyterLab as `make lab` starts it, for a new user, on the lessons without their outputs."""
    root = tmp_path_factory.mktemp("lab")
    folder = root / "notebooks"
    folder.mkdir()
    for path in LESSONS:
        write_without_outputs(read(path), folder / path.name)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found = Server(f"http://127.0.0.1:{port}", secrets.token_hex(16), folder)
    home = tempfile.mkdtemp()  # nobody's own settings; a short path, as a user's is
    environment = kernel_environment(HOME=home, IPYTHONDIR=home, CUDA_VISIBLE_DEVICES="")
    environment |= {"IP": "127.0.0.1", "PORT": str(port), "JUPYTER_TOKEN": found.token}
    for display in ("DISPLAY", "WAYLAND_DISPLAY"):
        environment.pop(display, None)
    with (root / "server.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, ROOT / "scripts/lab.py", root],
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:
        end = time.monotonic() + SECONDS_TO_START
        while not found.answers():
            log = (root / "server.log").read_text()
            assert process.poll() is None and time.monotonic() < end, log
            time.sleep(0.2)
        yield found
    finally:
        process.terminate()
        process.wait(timeout=60)
        shutil.rmtree(home, ignore_errors=True)


def write_without_outputs(nb: nbformat.NotebookNode, path: Path) -> None:
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(nb, path)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if not find_browser():
        pytest.fail("There is no Chromium here: run make test-browser, which installs it.")
    expect.set_options(timeout=30_000)
    shutil.rmtree(SCREENSHOTS, ignore_errors=True)
    SCREENSHOTS.mkdir()
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=find_browser(), args=FLAGS)
        yield running
        running.close()


@pytest.fixture(scope="session")
def loaded():
    """The model and tokenizer of the lessons, to compare with what the widgets show."""
    return load_model()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        yield context.new_page()


@pytest.fixture(scope="session")
def opened(browser: Browser, server: Server) -> Iterator[Callable[[str], LabPage]]:
    """Opens a lesson and runs all its cells, once a session: the tests of one lesson share it."""
    pages: dict[str, LabPage] = {}
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        context.set_default_timeout(SECONDS * 1000)  # a machine may be busy

        def open_lesson(name: str) -> LabPage:
            if name not in pages:
                found = LabPage(context.new_page(), server, name)
                found.open()
                found.run_all()
                pages[name] = found
            return pages[name]

        yield open_lesson


@pytest.fixture
def lesson(request, opened) -> Iterator[LabPage]:
    """The lesson whose file or subject is the parameter; looked over when the test is done."""
    name = Path(request.param).name
    if not name.endswith(".ipynb"):
        name = lesson_on(request.param).name
    found = opened(name)
    found.page.bring_to_front()
    yield found
    found.page.screenshot(path=SCREENSHOTS / f"{name[:2]}_{request.node.name}.png")
    assert found.problems() == []


@pytest.fixture
def follow() -> Callable[[str, list[float]], None]:
    """Notes how long a widget took to follow, to be printed, and holds it to its limit."""

    def note(name: str, milliseconds: list[float]) -> None:
        follow_times[name] = milliseconds
        assert len(milliseconds) >= 15
        assert statistics.median(milliseconds) <= FOLLOW_MS, milliseconds

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if follow_times:
        limit = f"{FOLLOW_MS:g} ms at most"
        terminalreporter.section(f"from a move to what it changes on the screen, {limit}")
        for name, times in follow_times.items():
            middle, most = statistics.median(times), max(times)
            line = f"median {middle:4.0f} ms, longest {most:4.0f} ms of {len(times)} moves  {name}"
            terminalreporter.line(line)
