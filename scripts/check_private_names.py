"""Nobody imports a name that begins with an underscore from another module: `make lint` calls it."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def private_imports(folder: Path) -> list[str]:
    """Each `from module import _name` below `folder`, and each `module._name` of a module of it."""
    found = []
    for path in sorted(folder.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        ours = [node for node in imports if (node.module or "").startswith(folder.name)]
        names = [(node, alias.name) for node in ours for alias in node.names]
        modules = {alias.asname or alias.name for node in ours for alias in node.names}
        names += [
            (node, f"{node.value.id}.{node.attr}")
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
            if node.value.id in modules and node.value.id.islower()
        ]
        found += [
            f"{path.relative_to(folder.parent)}:{node.lineno}: {name} is private to its module"
            for node, name in names
            if name.split(".")[-1].startswith("_") and not name.endswith("__")
        ]
    return found


if __name__ == "__main__":
    problems = private_imports(ROOT / "tutorial_utils")
    print(*problems, sep="\n", end="\n" if problems else "")
    sys.exit(bool(problems))
