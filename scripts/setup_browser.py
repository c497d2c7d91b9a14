"""Installs what `make test-browser` needs: Playwright and axe into `.venv`, Chromium from Debian.

If both are there, it does nothing. CHROMIUM=/path/to/chrome names another browser. The browser that
Playwright itself could download is not used.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAMES = ["chromium", "chromium-browser", "google-chrome"]
PACKAGES = ["chromium", "fonts-dejavu-core"]


def find_browser() -> str | None:
    """The path of the Chromium to use: that of the variable CHROMIUM, or one on this machine."""
    if wanted := os.environ.get("CHROMIUM"):
        return shutil.which(wanted)
    return next(filter(None, map(shutil.which, NAMES)), None)


def main() -> None:
    if not all(map(importlib.util.find_spec, ("playwright", "axe_playwright_python"))):
        command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "-q"]
        command += ["-c", ".venv/constraints.txt", "-r", "tests/browser/requirements.txt"]
        if subprocess.run(command, cwd=ROOT).returncode:
            sys.exit("pip could not get Playwright and axe: its own message is above.")
    if find_browser():
        return
    if wanted := os.environ.get("CHROMIUM"):
        sys.exit(f"CHROMIUM is set to {wanted}, and there is no such program.")
    if not shutil.which("apt-get") or os.geteuid() != 0:
        sys.exit(
            "There is no Chromium here. On Debian and Ubuntu:\n\n"
            f"    sudo apt-get update && sudo apt-get install -y {' '.join(PACKAGES)}\n\n"
            "On other systems install Chromium or Chrome. If it is not found, give its path:\n"
            "make test-browser CHROMIUM=/path/to/chrome"
        )
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *PACKAGES]
    for command in (["apt-get", "update", "-q"], install):
        if subprocess.run(command, env=environment).returncode:
            sys.exit(f"{' '.join(command)} failed: its own message is above.")


if __name__ == "__main__":
    main()
