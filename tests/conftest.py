"""Makes nbmake fail a notebook in which a widget, a thread or a task swallowed an error."""

from __future__ import annotations

from pathlib import Path

import pytest

import notebook_tools

notebook_tools.watch_nbmake()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves out what is run only when asked for by name: the harness's notebooks, the browser."""
    if collection_path.name == "browser":  # they need a browser: make test-browser
        return True if not any("browser" in argument for argument in config.args) else None
    folder = collection_path.parent.name
    if folder in ("broken", "good") and not any(folder in argument for argument in config.args):
        return True
    return None
