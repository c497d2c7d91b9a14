"""Which exercises of the lessons have been solved on this machine, by the checks that said Right.

python -m tutorial_utils.lessons.progress           a line for each lesson
python -m tutorial_utils.lessons.progress --json    the same for a teacher's script

Read from the file of `tutorial_utils.lessons.passed`. Nothing is sent anywhere.
"""

from __future__ import annotations

import argparse
import ast
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tutorial_utils.lessons.passed import passed, progress_file

# In the order of the series. Read from the sources, so that nothing heavy is imported.
TOPICS = ["start", "tokens", "softmax", "decoding", "activations", "layer"]
TOPICS += ["lens", "contrast", "patching", "heads", "harvest", "features"]


def lessons() -> list[dict[str, Any]]:
    """Each lesson's subject and checks, and when each check first said Right, or None."""
    done, found = passed(), []
    for topic in TOPICS:
        source = (Path(__file__).parent / topic / "checks.py").read_text(encoding="utf-8")
        module = ast.parse(source)
        subject = (ast.get_docstring(module) or "").partition("the exercises ")[2].rstrip(".")
        names = [
            node.name
            for node in module.body
            if isinstance(node, ast.FunctionDef) and node.name.startswith("check_")
        ]
        checks = {name.removeprefix("check_"): done.get(name) for name in names}
        found.append({"lesson": subject.removeprefix("on ").removeprefix("of "), "checks": checks})
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0, or 1 with a message where the file cannot be read."""
    parser = argparse.ArgumentParser(
        prog="python -m tutorial_utils.lessons.progress",
        description="Show which exercises were solved on this machine. Nothing is sent anywhere.",
    )
    parser.add_argument("--json", action="store_true", help="for a script")
    as_json = parser.parse_args(arguments).json
    try:
        found = lessons()
    except OSError as error:
        print(f"error: {error}. To use another file, set TUTORIAL_PROGRESS.", file=sys.stderr)
        return 1
    times = [at for lesson in found for at in lesson["checks"].values()]
    count = sum(at is not None for at in times)
    if as_json:
        print(json.dumps({"solved": count, "exercises": len(times), "lessons": found}, indent=1))
        return 0
    for lesson in found:
        solved = [name for name, at in lesson["checks"].items() if at]
        part = f"{len(solved)} of {len(lesson['checks'])}"
        print(f"{lesson['lesson']:28} {part}   {', '.join(solved)}".rstrip())
    print(f"\n{count} of {len(times)} exercises solved, according to {progress_file()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
