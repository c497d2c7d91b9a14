"""Running a lesson's cells twice, its exercises and its controls finds what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from lesson_runs import Report, run_once, run_twice
from notebook_tools import ROOT, new_notebook, read
from tiny_models import make_gpt2, make_llama

SAMPLE = ROOT / "tests/notebooks/good/04_sample.ipynb"
PILES_UP = {
    "seen = []": "",
    "seen.append(1)": "changes `seen`",
    "seen.append(1)\nprint(len(seen))": "shows something else",
    "import torch\n\ntorch.manual_seed(0)\nlayer = torch.nn.Linear(2, 2)": "",
    "handle = layer.register_forward_hook(lambda *args: None)": "changes `layer`",
    "with torch.no_grad():\n    layer.bias += 1": "changes `layer`",
    "text = 'a'": "",
    "text += 'b'": "changes `text`",
    "noise = torch.rand(3)": "changes `noise`",
    "torch.manual_seed(0)\nprint(torch.rand(3))": "",
    "import matplotlib\n\nmatplotlib.use('agg')\nimport matplotlib.pyplot as plt": "",
    "figure = plt.figure()": "changes `open figures`",
    "print(object())": "",
}


@pytest.fixture
def run(tmp_path):
    """Runs a notebook of these cells in the ways of lesson_runs.py."""

    def run_cells(how, *sources: str, **options) -> Report:
        path = tmp_path / "04_cells.ipynb"
        nbformat.write(new_notebook(*sources, **options), path)
        return how(path)

    return run_cells


def run_sample(folder: Path, how, model: object, *swaps: tuple[str, str]) -> Report:
    """Runs the sample with other texts in its cells, on this model."""
    nb = read(SAMPLE)
    for old, new in swaps:
        cell = next(cell for cell in nb.cells if old in cell.source)
        cell.source = cell.source.replace(old, new, 1)
    nbformat.write(nb, folder / SAMPLE.name)
    return how(folder / SAMPLE.name, TUTORIAL_MODEL=str(model))


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> str:
    return str(make_llama(tmp_path_factory.mktemp("models") / "tiny-llama"))


def test_what_piles_up_is_found(run):
    report = run(run_twice, *PILES_UP)
    for place, (source, problem) in enumerate(PILES_UP.items(), start=1):
        found = [text for text in report.problems if text.startswith(f"cell {place} ")]
        assert bool(problem) == bool(found), (source, found)
        assert problem in "".join(found)
    assert any("hooks left on a model at the end: <lambda>" in text for text in report.problems)


def test_a_cell_that_varies_may_differ(run):
    source = "import random\n\nprint(random.random())"
    assert run(run_twice, source, tags=("varies",)).problems == []
    assert len(run(run_twice, source).problems) == 1


def test_a_cell_that_breaks_when_run_again_is_found(run):
    assert "NameError" in "".join(run(run_twice, "y = 1", "del y").problems)
    assert run(run_once, "y = 1", "del y").problems == []


CONTROLS = """\
import ipywidgets as widgets


def show(x, word, kind, ok):
    assert x < 9, "x is at its end"
    assert word, "the word is empty"
    assert kind != "b", "kind is b"
    assert not ok, "ok is on"


def on_click(button):
    raise ValueError("clicked")


button = widgets.Button()
button.on_click(on_click)
widgets.interact(show, x=(0, 9), word="w", kind=["a", "b", "c"], ok=False)
button
"""


def test_every_control_is_moved(run):
    report = run(run_once, CONTROLS)
    assert len(report.problems) == 1
    for message in ("x is at its end", "the word is empty", "kind is b", "ok is on", "clicked"):
        assert message in report.problems[0]
    assert report.moves == 3 + 3 + 4 + 2 + 1


def test_a_good_lesson_passes(tmp_path, llama):
    report = run_sample(tmp_path, run_twice, llama)
    assert report.problems == []
    assert report.stubs == {1: "Not tried yet", 2: "Not tried yet"}
    assert report.solutions == {1: "Right", 2: "Right"}
    assert report.moves > 0


def test_a_wrong_solution_is_found(tmp_path, llama):
    swaps = [("count = len(layers)", "count = 99"), ("count = ...", "count = 0")]
    swaps.append(("return tensor.norm(dim=-1)", "return tensor.nrm(dim=-1)"))
    report = run_sample(tmp_path, run_twice, llama, *swaps)
    assert report.problems == []
    assert report.stubs[1] == "Not yet"
    assert report.solutions[1] == "Not yet"
    assert "AttributeError" in report.solutions[2]


def test_a_lesson_for_one_kind_of_model_only_is_found(tmp_path):
    swap = ("layers = next(", "layers = model.model.layers or next(")
    report = run_sample(tmp_path, run_once, make_gpt2(tmp_path / "tiny-gpt2"), swap)
    assert "has no attribute 'model'" in "".join(report.problems)
