"""Which checks have said Right, in a file of the reader's own. Nothing is sent anywhere.

The file has a line of JSON for each check. The environment variable TUTORIAL_PROGRESS names another
file; `python -m tutorial_utils.lessons.progress` shows what is in it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path


def progress_file() -> Path:
    """The file that TUTORIAL_PROGRESS names, or one where this system keeps such files."""
    named = os.environ.get("TUTORIAL_PROGRESS", "").strip()
    if named:
        return Path(named).expanduser()
    if sys.platform == "win32":
        folder = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        folder = Path.home() / "Library" / "Application Support"
    else:
        folder = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return folder / "tutorial_utils" / "progress.jsonl"


def passed() -> dict[str, str]:
    """Each check that has said Right, and when it first did so, as ISO 8601 in UTC.

    Lines that are not readable are left out, and with no file the dictionary is empty. Raises
    OSError where there is a file that cannot be read.
    """
    found: dict[str, str] = {}
    try:
        lines = progress_file().read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return found
    for line in lines:
        try:
            entry = json.loads(line)
            found.setdefault(str(entry["check"]), str(entry["at"]))
        except (ValueError, KeyError, TypeError):
            continue
    return found


def note(check: Callable) -> None:
    """Write down that a check said Right. Where that is not possible, nothing happens."""
    name = check.__name__
    if not check.__module__.startswith("tutorial_utils.lessons."):
        return
    try:
        if name in passed():
            return
        file = progress_file()
        file.parent.mkdir(parents=True, exist_ok=True)
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        line = json.dumps({"check": name, "at": now})
        with file.open("a", encoding="utf-8") as lines:
            lines.write(f"\n{line}\n")  # begins anew, whatever a broken last line was
    except (OSError, RuntimeError):  # read-only, full, no home: the verdict has been printed
        return
