"""The tests of the lessons can fail: each is tried on something that is broken on purpose."""

from __future__ import annotations

import base64
import copy
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest
from nbclient.exceptions import CellTimeoutError
from nbformat import NotebookNode

import committed_outputs
import lesson_contract
import notebook_tools
import run_notebooks
from lesson_runs import run_once, run_twice
from notebook_tools import METADATA, ROOT, StrictClient, read
from tiny_models import make_gpt2, make_llama

HERE = Path(__file__).parent
SAMPLE = HERE / "good" / "04_sample.ipynb"
BROKEN = {
    "plain_error": "invalid literal for int()",
    "interact": "broken for 3",
    "interact_later": "division by zero",
    "interact_mended": "division by zero",
    "interactive_output": "broken for 3",
    "output_context": "broken inside an Output",
    "output_capture": "broken inside a captured function",
    "output_stderr": "invalid literal for int()",
    "button_click": "broken button",
    "observe": "broken observer",
    "observe_in_output": "broken observer",
    "thread": "broken thread",
    "thread_late": "broken thread",
    "task": "broken task",
    "log": "invalid literal for int()",
    "too_slow": "the notebook was not done after 6 s",
}


def run_nbmake(report: Path, notebooks: list[Path], seconds: int) -> dict[str, str]:
    """The failure of each notebook, or an empty text, from a pytest of its own."""
    command = [sys.executable, "-m", "pytest", "--nbmake", "-q", "-p", "no:cacheprovider"]
    subprocess.run(
        [*command, f"--junitxml={report}", *map(str, notebooks)],
        cwd=ROOT,
        env={**os.environ, "NOTEBOOK_SECONDS": str(seconds)},
        capture_output=True,
        check=False,
    )
    cases = ElementTree.parse(report).iter("testcase")
    return {
        Path(case.get("name", "")).stem: "".join(failure.text or "" for failure in case)
        for case in cases
    }


@pytest.fixture(scope="module")
def failures(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("nbmake")
    paths = [*sorted(HERE.glob("broken/*.ipynb")), HERE / "good" / "widgets.ipynb"]
    slow = [path for path in paths if path.stem == "too_slow"]
    halves = [path for path in paths if path not in slow]
    jobs = [(halves[::2], 120), (halves[1::2], 120), (slow, 2)]
    with ThreadPoolExecutor(2) as pool:
        runs = [
            pool.submit(run_nbmake, folder / f"{i}.xml", notebooks, seconds)
            for i, (notebooks, seconds) in enumerate(jobs)
        ]
        return {name: text for run in runs for name, text in run.result().items()}


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_nbmake_fails_a_broken_notebook(failures, name):
    assert BROKEN[name] in failures[name]


def test_nbmake_passes_good_widgets(failures):
    assert failures["widgets"] == ""


def test_each_broken_notebook_is_tried():
    assert {path.stem for path in HERE.glob("broken/*.ipynb")} == set(BROKEN)


def test_kernels_are_not_asked_to_leave():
    assert StrictClient(nbformat.v4.new_notebook()).shutdown_kernel == "immediate"


def test_a_notebook_that_computes_for_too_long_fails(folder):
    path = new_notebook(folder / "computes.ipynb", "sum(range(3))")
    client = StrictClient(read(path), seconds=0.01)
    client.timeout_func = lambda cell: 60
    with pytest.raises(CellTimeoutError, match=r"took .* s: 0.01 s at most"):
        client.execute()


def test_time_of_all_lessons_has_a_limit():
    assert not notebook_tools.are_too_slow({"a": notebook_tools.NOTEBOOK_SECONDS})
    seconds = dict.fromkeys("abcdefg", notebook_tools.NOTEBOOK_SECONDS)
    assert notebook_tools.are_too_slow(seconds)
    assert "TOO SLOW" in notebook_tools.tell_seconds(seconds)[-1]


def test_make_test_runs_the_lessons_through_nbmake(pytestconfig):
    """conftest.py switches nbmake on; the Makefile points pytest at notebooks/."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    line = next(line for line in makefile.split("\n") if "-m pytest" in line)
    paths = [word for word in line.split("-m pytest")[1].split() if word[0] != "-"]
    assert "notebooks" in (paths or pytestconfig.getini("testpaths"))


# Running each cell twice.

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


def new_notebook(path: Path, *sources: str, tags: tuple[str, ...] = ()) -> Path:
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    for cell in cells:
        cell.metadata.tags = list(tags)
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=METADATA), path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("notebooks")


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> str:
    return str(make_llama(tmp_path_factory.mktemp("models") / "tiny-llama"))


def test_what_piles_up_is_found(folder):
    report = run_twice(new_notebook(folder / "piles_up.ipynb", *PILES_UP))
    for place, (source, problem) in enumerate(PILES_UP.items(), start=1):
        found = [text for text in report.problems if text.startswith(f"cell {place} ")]
        assert bool(problem) == bool(found), (source, found)
        assert problem in "".join(found)
    assert any("hooks left on a model at the end: <lambda>" in text for text in report.problems)


def test_a_cell_that_varies_may_differ(folder):
    sources = ["import random\n\nprint(random.random())"]
    report = run_twice(new_notebook(folder / "varies.ipynb", *sources, tags=("varies",)))
    assert report.problems == []
    report = run_twice(new_notebook(folder / "varies.ipynb", *sources))
    assert len(report.problems) == 1


def test_a_cell_that_breaks_when_run_again_is_found(folder):
    path = new_notebook(folder / "breaks.ipynb", "y = 1", "del y")
    assert "NameError" in "".join(run_twice(path).problems)
    assert run_once(path).problems == []


CONTROLS = """
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


def test_every_control_is_moved(folder):
    report = run_once(new_notebook(folder / "controls.ipynb", CONTROLS.strip()))
    assert len(report.problems) == 1
    for message in ("x is at its end", "the word is empty", "kind is b", "ok is on", "clicked"):
        assert message in report.problems[0]
    assert report.moves == 3 + 3 + 4 + 2 + 1


def test_a_good_lesson_passes(llama):
    report = run_twice(SAMPLE, TUTORIAL_MODEL=llama)
    assert report.problems == []
    assert report.stubs == {1: "Not tried yet", 2: "Not tried yet"}
    assert report.solutions == {1: "Right", 2: "Right"}
    assert report.moves > 0


def test_a_wrong_solution_is_found(folder, llama):
    nb = read(SAMPLE)
    swap(nb, "count = len(layers)", "count = 99")
    swap(nb, "return tensor.norm(dim=-1)", "return tensor.nrm(dim=-1)")
    swap(nb, "count = ...", "count = 0")
    nbformat.write(nb, folder / "04_wrong.ipynb")
    report = run_twice(folder / "04_wrong.ipynb", TUTORIAL_MODEL=llama)
    assert report.problems == []
    assert report.stubs[1] == "Not yet"
    assert report.solutions[1] == "Not yet"
    assert "AttributeError" in report.solutions[2]


def test_a_lesson_for_one_kind_of_model_only_is_found(folder, tmp_path):
    nb = read(SAMPLE)
    swap(nb, "layers = next(", "layers = model.model.layers or next(")
    nbformat.write(nb, folder / "04_llama_only.ipynb")
    gpt2 = make_gpt2(tmp_path / "tiny-gpt2")
    report = run_once(folder / "04_llama_only.ipynb", TUTORIAL_MODEL=str(gpt2))
    assert "has no attribute 'model'" in "".join(report.problems)


# The rules that are read off the file.


def swap(nb: NotebookNode, old: str, new: str) -> None:
    """Changes the first cell that holds the text."""
    cell = next(cell for cell in nb.cells if old in cell.source)
    cell.source = cell.source.replace(old, new, 1)


def retag(nb: NotebookNode, old: str, new: str) -> None:
    cell = next(cell for cell in nb.cells if old in notebook_tools.tags(cell))
    cell.metadata.tags = [new]


def drop(nb: NotebookNode, text: str) -> None:
    nb.cells.remove(next(cell for cell in nb.cells if text in cell.source))


FUNCTIONS = {
    "record_activations": ("activations", [4]),
    "load_model": ("models", []),
    "next_token_probs": ("decoding", [7]),
    "LayerPicker": ("widgets", []),
}

SETUP_END = '{model.dtype}")'
IMPORT = "from tutorial_utils import record_activations"
BREAK_A_LESSON = {
    "has_title_and_question": [
        lambda nb: swap(nb, "# 04 ·", "# 4."),
        lambda nb: swap(nb, "tests?*", "tests.*"),
    ],
    "says_what_it_takes": [
        lambda nb: swap(nb, "- move a widget.", ""),
        lambda nb: swap(nb, "about 10 minutes", "not long"),
        lambda nb: swap(nb, "**Read before**", "Read before"),
    ],
    "has_the_setup_cell": [
        lambda nb: swap(nb, "import torch\n", "import torch, math\n"),
        lambda nb: retag(nb, "setup", "varies"),
    ],
    "has_short_cells": [
        lambda nb: swap(nb, "seen = {}", "\n".join(["seen = {}"] * 23)),
        lambda nb: [swap(nb, t, t + 13 * "\n0") for t in ("seen = {}", "import time")],
        lambda nb: [swap(nb, cell.source, cell.source + 9 * "\n1") for cell in nb.cells],
        lambda nb: swap(nb, "count = ...", " "),
    ],
    "has_as_much_text_as_code": [
        lambda nb: nb.cells.extend([nbformat.v4.new_markdown_cell("more")] * 20),
        lambda nb: nb.cells.extend([nbformat.v4.new_code_cell("more")] * 20),
    ],
    "asks_to_predict": [
        lambda nb: swap(nb, "**Predict first.**", "Guess."),
        lambda nb: nb.cells.insert(3, nbformat.v4.new_markdown_cell("Not yet.")),
    ],
    "explains_its_figures": [
        lambda nb: swap(nb, "**Notice:**", "Look:"),
        lambda nb: swap(nb, "- there is one", "there is one"),
        lambda nb: [cell.update(outputs=[]) for cell in notebook_tools.code_cells(nb)],
    ],
    "derives_by_hand_first": [
        lambda nb: [retag(nb, "by-hand", "varies") for _ in range(2)],
        lambda nb: swap(nb, "seen = {}", "from tutorial_utils import next_token_probs"),
        lambda nb: [swap(nb, "record_activations", "other") for _ in range(2)],
        lambda nb: swap(nb, SETUP_END, SETUP_END + f"\n{IMPORT}"),
        lambda nb: swap(nb, "torch.equal", "print"),
        lambda nb: swap(nb, "import time", "from tutorial_utils import next_token_probs"),
    ],
    "hooks_before_it_records": [
        lambda nb: swap(nb, "register_forward_hook", "register_hook"),
        lambda nb: swap(nb, "seen = {}", IMPORT),
    ],
    "shows_widgets_last": [
        lambda nb: retag(nb, "widget", "varies"),
        lambda nb: swap(nb, "import time", "from tutorial_utils import LayerPicker"),
        lambda nb: [cell.update(outputs=[]) for cell in notebook_tools.code_cells(nb)],
    ],
    "has_exercises": [
        lambda nb: swap(nb, "## Exercise 2 ·", "## Task 2 ·"),
        lambda nb: swap(nb, "## Exercise 2 ·", "## Exercise 3 ·"),
        lambda nb: swap(nb, "(2 minutes, easy)", "(2 minutes)"),
        lambda nb: retag(nb, "check", "varies"),
        lambda nb: swap(nb, "count = ...", "count = 0"),
        lambda nb: [swap(nb, "check_count(", "try_count(") for _ in range(2)],
        lambda nb: swap(nb, "<summary>Hint 2</summary>", "<summary>Hint</summary>"),
        lambda nb: swap(nb, "```python", "```"),
        lambda nb: swap(nb, "</details>", ""),
        lambda nb: swap(nb, "<summary>Hint 1</summary>\n", "<summary>Hint 1</summary>"),
        lambda nb: drop(nb, "<summary>Solution</summary>"),
    ],
    "ends_as_it_should": [
        lambda nb: drop(nb, "## Recap"),
        lambda nb: nb.cells.append(nbformat.v4.new_markdown_cell("## Afterword")),
        lambda nb: swap(nb, "- That is all.", ""),
        lambda nb: swap(nb, "- That is all.", "- That is all.\n- And more."),
        lambda nb: swap(nb, "|---|---|---|", ""),
        lambda nb: swap(nb, "(../docs/writing-a-lesson.md)", ""),
        lambda nb: swap(nb, "https://", ""),
    ],
    "has_only_plain_python": [
        lambda nb: swap(nb, "import time", "import sys\n\nsys.path.append('..')"),
        lambda nb: swap(nb, "import time", "%matplotlib inline"),
        lambda nb: swap(nb, "import time", "!pip install torch"),
        lambda nb: swap(nb, "import time", "plt.show()"),
        lambda nb: swap(nb, "import time", "import tutorial_utils"),
        lambda nb: swap(nb, "import time", "assert True"),
        lambda nb: swap(nb, "import time", "plt.rcParams['font.size'] = 9"),
    ],
    "has_known_tags_and_links": [
        lambda nb: retag(nb, "varies", "vary"),
        lambda nb: swap(nb, "../docs/writing-a-lesson.md", "99_not_there.ipynb"),
    ],
}


@pytest.fixture
def sample(monkeypatch) -> NotebookNode:
    monkeypatch.setattr(lesson_contract, "package_functions", lambda: FUNCTIONS)
    return read(SAMPLE)


@pytest.mark.parametrize("rule", lesson_contract.RULES, ids=lambda rule: rule.__name__)
def test_contract(rule, sample):
    assert list(rule(sample, "04")) == []
    for number, change in enumerate(BREAK_A_LESSON[rule.__name__]):
        changed = copy.deepcopy(sample)
        change(changed)
        try:
            problems = list(rule(changed, "04"))
        except SyntaxError:
            problems = ["this is no Python"]
        assert problems, f"change {number} was not noticed"


# What is committed.


def show(nb: NotebookNode, **data: str) -> None:
    """Gives the set-up cell one more output; `text` stands for text/plain and so on."""
    kinds = {"text": "text/plain", "html": "text/html", "png": "image/png", "svg": "image/svg+xml"}
    kinds["widget"] = notebook_tools.WIDGET_MIME
    data = {kinds[kind]: content for kind, content in data.items()}
    nb.cells[1].outputs.append(nbformat.v4.new_output("display_data", data=data))


def stream(nb: NotebookNode, name: str, text: str) -> None:
    nb.cells[1].outputs.append(nbformat.v4.new_output("stream", name=name, text=text))


BIG = base64.b64encode(bytes(200_001)).decode()
BREAK_A_FILE = {
    "is_a_valid_notebook": [
        lambda nb: nb.cells[2].update(id=nb.cells[0].id),
        lambda nb: nb.cells[1].pop("outputs"),
    ],
    "has_run_in_order": [
        lambda nb: nb.cells[1].update(execution_count=None),
        lambda nb: nb.cells[1].update(execution_count=2),
        lambda nb: nb.cells[1].outputs.append(
            nbformat.v4.new_output("execute_result", execution_count=9)
        ),
    ],
    "has_the_outputs_of_its_code": [
        lambda nb: swap(nb, "import time", "import time as clock"),
        lambda nb: [cell.update(outputs=[]) for cell in notebook_tools.code_cells(nb)],
        lambda nb: nb.metadata.pop("outputs_of"),
    ],
    "shows_no_error": [
        lambda nb: nb.cells[1].outputs.append(
            nbformat.v4.new_output("error", ename="KeyError", evalue="", traceback=[])
        ),
        lambda nb: stream(nb, "stderr", "UserWarning: look out"),
    ],
    "names_no_machine": [
        lambda nb: stream(nb, "stdout", "loaded /home/ada/models/tiny"),
        lambda nb: stream(nb, "stdout", "loaded /root/.cache/huggingface"),
        lambda nb: show(nb, text="PosixPath('/Users/ada/tiny')"),
        lambda nb: show(nb, text="see", html="<b>/tmp/tiny</b>"),
        lambda nb: stream(nb, "stdout", "C:\\Users\\Ada\\tiny"),
        lambda nb: stream(nb, "stdout", "lib/python3.11/site-packages/torch"),
        lambda nb: show(nb, text="<function draw at 0x7f2a3c4d5e6f>"),
        lambda nb: swap(nb, "import time", "folder = '/workspace/tiny'"),
    ],
    "tells_no_secret": [
        lambda nb: stream(nb, "stdout", "hf_" + "aB3" * 10),
        lambda nb: swap(nb, "## Sources", "http://127.0.0.1:8888/lab?token=abc123"),
        lambda nb: swap(nb, "import time", "url = 'https://ada:secret@example.org'"),
    ],
    "has_small_images": [
        lambda nb: show(nb, text="a figure", png=BIG),
        lambda nb: show(nb, text="a figure", svg="<svg>" + "a" * 200_000),
        lambda nb: show(nb, text="a figure", html=f"<img src='data:image/png;base64,{BIG}'>"),
    ],
    "reads_without_a_kernel": [
        lambda nb: show(nb, text="IntSlider(value=3)", widget="{}"),
        lambda nb: show(nb, html="<b>no plain text</b>"),
    ],
    "has_no_trace_of_the_run": [
        lambda nb: nb.metadata.update(widgets={}),
        lambda nb: nb.metadata.language_info.update(version="3.11.7"),
        lambda nb: nb.metadata.kernelspec.update(name="my-venv"),
        lambda nb: nb.cells[1].metadata.update(execution={"iopub.status.busy": "2026-01-01"}),
    ],
}


@pytest.mark.parametrize("rule", committed_outputs.RULES, ids=lambda rule: rule.__name__)
def test_committed(rule):
    nb = read(SAMPLE)
    assert list(rule(nb)) == []
    for number, change in enumerate(BREAK_A_FILE[rule.__name__]):
        changed = copy.deepcopy(nb)
        change(changed)
        assert list(rule(changed)), f"change {number} was not noticed"


def test_what_make_notebooks_leaves_can_be_committed():
    nb = read(SAMPLE)
    nb.cells[1].metadata.tags = [*nb.cells[1].metadata.tags, "widget"]
    nb.metadata.update(widgets={}, language_info={"name": "python", "version": "3.11.7"})
    nb.cells[1].metadata.update(execution={"iopub.status.busy": "2026-01-01"})
    nb.cells[1].metadata.update(slideshow={"slide_type": "slide"})
    stream(nb, "stdout", "printed in ")
    stream(nb, "stdout", "two messages\n")
    show(nb, text="IntSlider(value=3)", widget="{}")
    run_notebooks.clean(nb)
    assert [list(rule(nb)) for rule in committed_outputs.RULES] == [[]] * len(
        committed_outputs.RULES
    )
    *_, text, widget = nb.cells[1].outputs
    assert text.text.endswith("printed in two messages\n")
    assert widget.data["text/plain"] == run_notebooks.INSTEAD_OF_WIDGET + run_notebooks.AT_REST
    assert nb.cells[1].metadata.slideshow == {"slide_type": "slide"}


def test_make_notebooks_leaves_no_trace_of_a_progress_bar():
    nb = read(SAMPLE)
    before = len(nb.cells[1].outputs)
    show(nb, text="FloatProgress(value=1.0)", widget="{}")
    run_notebooks.clean(nb)
    assert len(nb.cells[1].outputs) == before


def test_make_notebooks_leaves_a_broken_lesson_as_it_was(folder, capsys, monkeypatch):
    path = new_notebook(folder / "broken.ipynb", "print(1)", "int('x')")
    before = path.read_bytes()
    monkeypatch.setattr(sys, "argv", ["run_notebooks.py", str(path)])
    assert run_notebooks.main() == 1
    assert path.read_bytes() == before
    assert "invalid literal" in capsys.readouterr().err
