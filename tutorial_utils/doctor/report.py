"""The doctor (`python -m tutorial_utils`) checks whether this machine can run the series."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from typing import TYPE_CHECKING

from tutorial_utils.doctor.check import INSTALL, Check, installed

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet

PACKAGE = "tutorial_utils"
SHORT = {"device", "memory", "GPU 0", "TUTORIAL_MODEL", "does it run"}


def check_machine() -> list[Check]:
    """Check everything that the series needs. Downloads no weights and changes nothing."""
    checks = _guarded("packages", _versions)
    try:
        from tutorial_utils.doctor import machine, model
    except Exception as error:  # torch is not installed, or an installation is broken
        return [*checks, Check("imports", "problem", _in_a_line(error), INSTALL)]
    for name, look in {
        "device": machine.device,
        "memory": machine.memory,
        "disk for models": machine.disk,
        "widgets": machine.widgets,
        "shipped model": model.shipped_model,
        "TUTORIAL_MODEL": model.chosen_model,
    }.items():
        checks += _guarded(name, look)
    return checks


def _guarded(name: str, look: Callable[[], Iterator[Check]]) -> list[Check]:
    """The lines of a check. If the check itself fails, its error becomes a line of the report."""
    checks = []
    try:
        for check in look():  # one at a time, to keep the lines that come before an error
            checks.append(check)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic in the Rust code of tokenizers is not an Exception
        todo = "this check itself failed: please report it with the output of --json"
        checks.append(Check(name, "problem", _in_a_line(error), todo))
    return checks


def _in_a_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def short_report(checks: Sequence[Check]) -> str:
    """The report with only its warnings, problems and main lines, and the verdict at the end."""
    shown = [check for check in checks if check.state != "ok" or check.what in SHORT]
    return "\n".join([*map(str, shown), "", verdict(checks)])


def verdict(checks: Sequence[Check]) -> str:
    """The last line of the report: does the series run here?"""
    count = sum(check.state == "problem" for check in checks)
    return f"Problems: {count}. Each -> says what to do." if count else "The series runs here."


def main(arguments: Sequence[str] = ()) -> int:
    """Print the report; 0 if the series runs here, else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m tutorial_utils",
        description="Checks whether this machine can run the series, and says what to do if not. "
        "The exit status is 0 if it can, else 1.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for scripts")
    options = parser.parse_args(arguments)
    checks = check_machine()
    ready = all(check.state != "problem" for check in checks)
    if options.json:
        lines = [check._asdict() for check in checks]
        print(json.dumps({"ready": ready, "checks": lines}, indent=1))
    else:
        print(*checks, "", verdict(checks), sep="\n")
    return int(not ready)


def _versions() -> Iterator[Check]:
    """Compare Python and the packages with the versions that this package requires."""
    try:
        from packaging.requirements import Requirement
        from packaging.specifiers import SpecifierSet

        python = SpecifierSet(metadata.metadata(PACKAGE)["Requires-Python"] or "")
        needed = [Requirement(text) for text in metadata.requires(PACKAGE) or []]
    except ModuleNotFoundError as error:  # also PackageNotFoundError
        yield Check("packages", "warning", f"not checked: {error.name} is not installed", INSTALL)
        return
    yield _version("Python", platform.python_version(), python)
    for requirement in needed:
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield _version(requirement.name, installed(requirement.name), requirement.specifier)
    lab = installed("jupyterlab")  # only a warning: any program that opens notebooks will do
    state, todo = ("ok", "") if lab else ("warning", "`pip install jupyterlab`, or use your editor")
    yield Check("jupyterlab", state, lab or "not installed", todo)


def _version(name: str, found: str | None, allowed: SpecifierSet) -> Check:
    if found is None:
        return Check(name, "problem", f"not installed (needs {allowed})", INSTALL)
    if not allowed.contains(found, prereleases=True):
        todo = "install such a version of Python first" if name == "Python" else INSTALL
        return Check(name, "problem", f"{found} (needs {allowed})", todo)
    return Check(name, "ok", found)
