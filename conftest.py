"""Read by pytest for every path of the project, `pytest notebooks/` among them.

(tests/conftest.py is read only when pytest is pointed at tests/.)
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent
sys.path[:0] = [str(ROOT / folder) for folder in ("tests", "tests/notebooks", "scripts", "bench")]

import notebook_tools  # noqa: E402
import strict_client  # noqa: E402

# Before anything imports transformers: no test asks the network, and none runs on another model
# because of a variable that the person at the keyboard has set.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("TUTORIAL_MODEL", None)
os.environ["TUTORIAL_PROGRESS"] = os.devnull
strict_client.watch_nbmake()

lesson_seconds: dict[str, float] = {}


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    config.option.nbmake = True


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" and report.nodeid.startswith("notebooks/"):
        took = strict_client.StrictClient.last_took if report.passed else report.duration
        lesson_seconds[Path(report.fspath).name] = took


def pytest_sessionfinish(session: pytest.Session) -> None:
    if notebook_tools.are_too_slow(lesson_seconds):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if lesson_seconds:
        terminalreporter.section("lessons, kernel start and imports included")
        for line in notebook_tools.tell_seconds(lesson_seconds):
            terminalreporter.line(line)
