"""One line of the doctor's report."""

from __future__ import annotations

from importlib import metadata
from typing import NamedTuple

INSTALL = "run `make lab`, or `pip install -r requirements.txt`, in the project's folder"


class Check(NamedTuple):
    """One line of the report."""

    what: str
    state: str  # "ok"; "warning": the series runs, with a limitation; "problem": it does not run
    found: str
    todo: str = ""  # what to do next, where the state is not ok

    def __str__(self) -> str:
        line = f"{self.state:<8} {self.what:<15} {self.found}"
        return f"{line}\n{'':<24} -> {self.todo}" if self.todo else line


def installed(name: str) -> str | None:
    """The version of an installed package; None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
