"""What the lessons show of a real model was made by the cells that stand in them today."""

from __future__ import annotations

import json

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError

import real
from notebook_tools import LESSONS, code_cells, read, tags

WITH_RESULT = [path for path in LESSONS if real.made_by(read(path)) is not None]


@pytest.mark.parametrize("path", WITH_RESULT, ids=[path.stem for path in WITH_RESULT])
def test_the_result_was_made_by_these_cells(path):
    nb = read(path)
    file = real.result_file(nb)
    assert file.stat().st_size < 10_000, "a few kilobytes for each lesson"
    stored = json.loads(file.read_text(encoding="utf-8"))
    assert stored["cells"] == real.hash_of_makers(nb), "run `make real`: a cell has changed since"
    after = code_cells(nb)[len(real.makers(nb)) :]
    assert any("read_result(" in cell.source for cell in after)


WITH_SPREAD = [path for path in LESSONS if real.made_by(read(path), "spread") is not None]


@pytest.mark.parametrize("path", WITH_SPREAD, ids=[path.stem for path in WITH_SPREAD])
def test_the_spread_over_seeds_was_made_by_these_cells(path):
    nb = read(path)
    stored = json.loads(real.result_file(nb, "spread").read_text(encoding="utf-8"))
    assert stored["cells"] == real.hash_of_makers(nb, "spread"), "run `make real`"
    assert len(stored["result"]) == 5 and stored["result"][0] != stored["result"][1]
    assert any(', "spread")' in cell.source for cell in code_cells(nb))


def test_a_changed_cell_is_noticed():
    nb = read(WITH_RESULT[0])
    before = real.hash_of_makers(nb)
    code_cells(nb)[-1].source += "\n# after the result"
    assert real.hash_of_makers(nb) == before
    code_cells(nb)[2].source += "\n# before it"
    assert real.hash_of_makers(nb) != before


def test_numbers_are_rounded_and_words_kept():
    value = {"a": 0.123456, "b": [1, 1234567.0, "x"], "c": True}
    assert real.rounded(value) == {"a": 0.1235, "b": [1, 1235000.0, "x"], "c": True}


@pytest.mark.parametrize("path", WITH_RESULT, ids=lambda path: path.stem)
def test_the_page_of_another_model_has_what_its_section_prints(path):
    """The cells after the tagged one, in its own section, print something of both models."""
    nb = read(path)
    told = "".join(output.get("text", "") for c in real.comparing(nb) for output in c.outputs)
    assert "SmolLM2" in told and 2 < len(told.splitlines()) < 40
    assert not any("exercise" in tags(cell) for cell in real.comparing(nb))


def test_an_error_in_one_lesson_leaves_the_page_of_the_others(tmp_path, monkeypatch):
    async def run(nb, path, model):
        if path == WITH_RESULT[0]:
            traceback = "a long\ntraceback"
            raise CellExecutionError(traceback, "OutOfMemoryError", "no room for 16 GB")
        real.comparing(nb)[0].outputs = [nbformat.v4.new_output("stream", text="42 here\n")]
        return {"a share": 0.25, "each": {"layer": [i / 2 for i in range(80)], "text": "x" * 200}}

    monkeypatch.setattr(real, "run", run)
    monkeypatch.setattr(real, "ROOT", tmp_path)
    assert real.write_page("owner/Model-8B", WITH_RESULT[:2]) == 1
    page = (tmp_path / "build" / "real" / "Model-8B.md").read_text(encoding="utf-8")
    assert f"## {WITH_RESULT[0].stem} (0 s)\n\nNo result: this lesson ended with an error." in page
    assert "    OutOfMemoryError: no room for 16 GB\n" in page
    assert f"## {WITH_RESULT[1].stem} (0 s)" in page and "\n\n```\n42 here\n" in page
    assert "\nWhat this model gave:\n  a share: 0.25\n" in page
    assert (
        "  each layer: 80 numbers, 0 to 39.5: [0.0, 0.5, " in page
        and f' each text: "{"x" * 59} …' in page
    )
