"""Builds the site of the series in build/site (`make site`). It can be read without a network.

The pages are the notebooks with their stored outputs, the texts in docs/, and the docstrings of
the package. This runs in .venv-site, with the packages of requirements-site.txt.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from importlib.metadata import files
from pathlib import Path
from typing import Any

from check_pages import problems

ROOT = Path(__file__).resolve().parents[1]
SOURCE, SITE = ROOT / "build" / "site-source", ROOT / "build" / "site"
CHAPTERS = {
    "Lessons": ["notebooks/*"],
    "For the reader": ["docs/glossary", "docs/cheat-sheet", "docs/from-here-on", "docs/api"],
    "For the teacher": ["docs/instructor-guide", "docs/projects"],
    "Help": ["docs/troubleshooting", "docs/gpu-boxes", "docs/versions", "docs/benchmarks"],
    "The project": [
        "pocket_llama/README",
        "CONTRIBUTING",
        "docs/writing-a-lesson",
        "CHANGELOG",
        "LICENSE-TEXT",
    ],
}


def main() -> int:
    for folder in (SOURCE, SITE):
        shutil.rmtree(folder, ignore_errors=True)
    gather(SOURCE)
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    command += ["-c", str(ROOT / "docs" / "site"), str(SOURCE), str(SITE)]
    if subprocess.run(command).returncode != 0:
        return 1
    shutil.rmtree(SITE / ".doctrees", ignore_errors=True)
    for template in SITE.glob("_static/*macros.html"):  # files of the theme, not pages
        template.unlink()
    for page in SITE.rglob("*.html"):
        page.write_text(accessible(page.read_text(encoding="utf-8")), encoding="utf-8")
    found = problems(SITE)
    print(*found, sep="\n", file=sys.stderr)
    pages = len(list(SITE.rglob("*.html")))
    print(f"{pages} pages. Open {(SITE / 'index.html').relative_to(ROOT)} in a browser.")
    return 1 if found else 0


def accessible(page: str) -> str:
    """The page with what its theme leaves out for those who use the keyboard or their voice."""
    # A button's name begins with what is written on it, "Search Ctrl+K": no label in its place.
    page = re.sub(r'(<button[^>]*search-button-field[^>]*?)\s+aria-label="Search"', r"\1", page)
    # The icons of the colour mode have names that nobody sees: the button has its own.
    page = re.sub(r'(<i class="theme-switch [^>]*?)\s+title="[^"]*"', r"\1", page)
    # A wide table scrolls inside the page (site.css): with the keyboard too.
    return re.sub(r'<table(?= class="[^"]*\btable\b)', '<table tabindex="0"', page)


def gather(source: Path) -> None:
    """Puts all that Sphinx reads into one folder."""
    gather_texts(source)
    static = source / "_static"
    static.mkdir()
    shutil.copy(ROOT / "docs" / "site" / "site.css", static)
    shutil.copy(installed_file("sphinx-mathjax-offline", "mathjax/tex-svg.js"), static)
    for picture in ROOT.glob("docs/*.png"):
        shutil.copy(picture, source / "docs")


def gather_texts(source: Path) -> None:
    """The pages, each at the same path as in the project, so that links between them hold."""
    paths = [*ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("docs/*.md"), *ROOT.glob("[B-Z]*.md")]
    paths.remove(ROOT / "README.md")
    for path in [*paths, ROOT / "pocket_llama" / "README.md", ROOT / "LICENSE"]:
        to = source / path.relative_to(ROOT)
        to.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text(encoding="utf-8")
        to.write_text(text.replace("](../README.md", "](../index.md"), encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (source / "index.md").write_text(readme + contents(), encoding="utf-8")
    (source / "docs" / "api.md").write_text(api_page(), encoding="utf-8")


def contents() -> str:
    """The table of contents, which the site shows beside each page."""
    lists = [
        f"```{{toctree}}\n:hidden:\n:glob:\n:caption: {chapter}\n\n" + "\n".join(pages) + "\n```\n"
        for chapter, pages in CHAPTERS.items()
    ]
    return "\n" + "\n".join(lists)


def api_page() -> str:
    """A heading for each module of the tool, then for each topic of the lessons."""
    package = ROOT / "tutorial_utils"
    public = constant(package / "__init__.py", "_MODULES")
    for path in sorted(package.glob("lessons/*/__init__.py")):
        public[f"lessons.{path.parent.name}"] = constant(path, "__all__") or []
    page = (
        "# The package, function by function\n\nImport any of these with `from tutorial_utils "
        "import ...`. Only the last ones differ: a heading that begins with `lessons` names the "
        "module to import from.\n"
    )
    for module, names in public.items():
        if not names:
            continue
        page += f"\n## {module}\n\n```{{eval-rst}}\n.. automodule:: tutorial_utils.{module}\n"
        for name in names:
            kind, option = "autofunction", ""
            if name.isupper():
                kind, option = "autodata", "   :no-value:\n"
            elif name[0].isupper():
                kind, option = "autoclass", "   :members:\n"
            page += f"\n.. {kind}:: tutorial_utils.{module}.{name}\n{option}"
        page += "```\n"
    return page


def constant(path: Path, name: str) -> Any:
    """The value assigned to `name` in a Python file, or None. The file is not run."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return ast.literal_eval(node.value)
    return None


def installed_file(distribution: str, ending: str) -> Path:
    """The file of an installed distribution whose path ends like this."""
    return next(Path(f.locate()) for f in files(distribution) if str(f).endswith(ending))


if __name__ == "__main__":
    sys.exit(main())
