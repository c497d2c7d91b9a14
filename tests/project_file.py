"""What pyproject.toml says of the project."""

from __future__ import annotations

import sys
from pathlib import Path

from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # comes with pytest there

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
PROJECT = tomllib.loads(TEXT)["project"]
# `quantize` is for who wants it: no test needs it.
EXTRAS = {name: PROJECT["optional-dependencies"][name] for name in ("notebooks", "dev")}


def requirements() -> list[Requirement]:
    """All that requirements.txt installs: the package's dependencies and both extras."""
    return [Requirement(line) for line in sum(EXTRAS.values(), PROJECT["dependencies"])]
