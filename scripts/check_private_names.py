"""Fails if a module uses a name of another module that begins with an underscore (`make lint`)."""

import ast
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "tutorial_utils"


def private_names(code: str) -> list[str]:
    """Each `from tutorial_utils.x import _y`, and each `x._y` where `x` is imported from there."""
    nodes = list(ast.walk(ast.parse(code)))
    ours = [n for n in nodes if f"{getattr(n, 'module', '')}".startswith(PACKAGE.name)]
    ours += [n for n in nodes if isinstance(n, ast.Import) and PACKAGE.name in n.names[0].name]
    found = [(n.lineno, alias.name) for n in ours for alias in n.names]
    imported = {alias.asname or alias.name for n in ours for alias in n.names}
    uses = [n for n in nodes if isinstance(n, ast.Attribute) and ast.unparse(n.value) in imported]
    found += [(n.lineno, n.attr) for n in uses]
    return [f"{line}: {name}" for line, name in found if name[0] == "_" != name[-1]]


if __name__ == "__main__":
    paths = sorted(PACKAGE.rglob("*.py"))
    problems = [f"{path}:{use}" for path in paths for use in private_names(path.read_text("utf-8"))]
    sys.exit("\n".join(["private to another module:", *problems]) if problems else 0)
