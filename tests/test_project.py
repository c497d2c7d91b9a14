"""What a contributor is told holds: the map, the changelog, the commands, the files of GitHub."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import project_file
import tutorial_utils

ROOT = Path(__file__).resolve().parents[1]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
MAP = [s for s in CONTRIBUTING.splitlines() if s.count("|") == 4 and "/" in s]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text(encoding="utf-8"))
COMMANDS = [
    step["run"] for job in WORKFLOW["jobs"].values() for step in job["steps"] if "run" in step
]
HOOKS = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]


@pytest.mark.parametrize("line", MAP, ids=lambda line: line.split("|")[1].strip())
def test_each_line_of_the_map_leads_somewhere(line):
    _, _, places, test, _ = line.split("|")
    for column in (places, test):
        paths = re.findall(r"`([\w.-]*[./][\w./-]*)`", column)
        folders = [ROOT, *(ROOT / path for path in paths if path.endswith("/"))]
        assert paths, column
        for path in paths:
            assert any((folder / path).exists() for folder in folders), path


def test_the_map_comes_first_and_knows_each_part_of_the_package():
    assert CONTRIBUTING.index(MAP[0]) < CONTRIBUTING.index("## Before you send a change")
    parts = {path.name for path in (ROOT / "tutorial_utils").iterdir() if path.name[0] != "_"}
    named = re.findall(r"tutorial_utils/([\w.]+)", "".join(MAP))
    assert parts - {"py.typed"} <= set(named)


def targets_in(text: str) -> set[str]:
    words = re.findall(r"\bmake ((?:[a-z-]+ ?)+)", text)
    return {target for word in words for target in word.split()}


def test_every_make_target_that_is_named_is_there():
    known = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    hooks = [hook["entry"] for repository in HOOKS for hook in repository["hooks"]]
    table = "\n".join(re.findall(r"^\| `(make .*?)`", CONTRIBUTING, re.MULTILINE))
    assert targets_in("\n".join([*COMMANDS, *hooks, table])) <= known
    assert {"make format", "make lint"} == set(hooks)
    assert {"make lint", "make test", "make site slides", "make test-browser"} <= set(COMMANDS)


def test_the_workflow_runs_what_the_readme_says():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for command in ("make test", "make lint", "make test-browser"):
        assert command in readme and command in COMMANDS
    matrix = WORKFLOW["jobs"]["tests"]["strategy"]["matrix"]
    assert project_file.PROJECT["requires-python"] == f">={matrix['python'][0]}"
    assert {system.partition("-")[0] for system in matrix["os"]} == {"ubuntu", "macos"}


def test_the_form_for_problems_asks_for_what_the_check_of_the_machine_prints():
    form = (ROOT / ".github/ISSUE_TEMPLATE/problem.yml").read_text(encoding="utf-8")
    (argument,) = set(re.findall(r"python -m tutorial_utils (--\w+)", form))
    doctor = "".join(p.read_text("utf-8") for p in ROOT.glob("tutorial_utils/doctor/*.py"))
    assert f'"{argument}"' in doctor


def test_one_version_is_told_everywhere():
    versions = re.findall(
        r"^## \[(\d[\d.]+)\] - \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M
    )
    assert versions[0] == tutorial_utils.__version__
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == tutorial_utils.__version__


def test_scripts_import_nothing_from_tests():
    tests = {path.stem for path in ROOT.glob("tests/**/*.py")} | {"tests"}
    for path in ROOT.glob("scripts/*.py"):
        text = path.read_text(encoding="utf-8")
        imported = re.findall(r"^\s*(?:from|import) (\w+)", text, re.MULTILINE)
        assert not tests.intersection(imported), path.name
        assert 'ROOT / "tests' not in text, path.name


def test_no_text_holds_the_marks_of_a_merge():
    texts = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("notebooks/*.ipynb")]
    for path in texts:
        assert not re.search(r"<<<<<<< |>>>>>>> ", path.read_text(encoding="utf-8")), path.name


def test_the_glossary_has_each_word_once_and_in_order():
    glossary = (ROOT / "docs/glossary.md").read_text(encoding="utf-8")
    words = [word.lower() for word in re.findall(r"^\*\*(.+?)\.\*\*", glossary, re.MULTILINE)]
    assert len(words) > 50 and words == sorted(set(words))
