"""`python -m tutorial_utils`: will this machine run the series, and if not, what to do."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Sequence
from importlib import metadata
from typing import TYPE_CHECKING

from tutorial_utils.doctor.check import INSTALL, Check, installed

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet


PACKAGE = "tutorial_utils"
SHORT = {"device", "memory", "GPU 0", "TUTORIAL_MODEL"}


def check_machine() -> list[Check]:
    """Look at everything that the series needs. No weights are downloaded, nothing is
    changed.
    """
    checks = _versions()
    try:
        from tutorial_utils.doctor import machine, model
    except Exception as error:  # torch is not installed, or an installation is broken
        text = " ".join(f"{type(error).__name__}: {error}".split())
        return [*checks, Check("imports", "problem", text, INSTALL)]
    checks += [machine.device(), *machine.memory(), *machine.disk()]
    checks += [machine.widgets(), model.shipped_model()]
    return [*checks, *model.chosen_model()]


def short_report(checks: Sequence[Check]) -> str:
    """What stands in the way, where it runs, and the verdict."""
    shown = [check for check in checks if check.state != "ok" or check.what in SHORT]
    return "\n".join([*map(str, shown), "", verdict(checks)])


def verdict(checks: Sequence[Check]) -> str:
    problems = sum(check.state == "problem" for check in checks)
    if problems:
        return f"Problems: {problems}. What to do is next to ->."
    return "The series runs here."


def main(arguments: Sequence[str] = ()) -> int:
    """Print the report; 0 if the series runs here, else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m tutorial_utils",
        description="Will this machine run the series, and if not, what to do? "
        "Ends with 0 if it will, with 1 if not.",
    )
    parser.add_argument("--json", action="store_true", help="for scripts")
    options = parser.parse_args(arguments)
    checks = check_machine()
    ready = all(check.state != "problem" for check in checks)
    if options.json:
        lines = [check._asdict() for check in checks]
        print(json.dumps({"ready": ready, "checks": lines}, indent=1))
    else:
        print(*checks, "", verdict(checks), sep="\n")
    return int(not ready)


def _versions() -> list[Check]:
    """Python and packages, against the ranges that the package itself was installed with."""
    try:
        from packaging.requirements import Requirement
        from packaging.specifiers import SpecifierSet

        python = SpecifierSet(metadata.metadata(PACKAGE)["Requires-Python"] or "")
        needed = [Requirement(text) for text in metadata.requires(PACKAGE) or []]
    except ModuleNotFoundError as error:  # a PackageNotFoundError is one, too
        return [
            Check("packages", "warning", f"not checked: {error.name} is not installed", INSTALL)
        ]
    checks = [_version("Python", platform.python_version(), python)]
    for requirement in needed:
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            found = installed(requirement.name)
            checks.append(_version(requirement.name, found, requirement.specifier))
    lab = installed("jupyterlab")  # any program that opens notebooks does
    state, todo = ("ok", "") if lab else ("warning", "`pip install jupyterlab`, or use your editor")
    return [*checks, Check("jupyterlab", state, lab or "not installed", todo)]


def _version(name: str, found: str | None, allowed: SpecifierSet) -> Check:
    if found is None:
        return Check(name, "problem", f"not installed (needs {allowed})", INSTALL)
    if not allowed.contains(found, prereleases=True):
        todo = "install such a Python first" if name == "Python" else INSTALL
        return Check(name, "problem", f"{found} (needs {allowed})", todo)
    return Check(name, "ok", found)
