"""Each rule for a lesson's file finds what breaks it: a good lesson is broken in each way."""

from __future__ import annotations

import base64
from collections.abc import Callable

import nbformat
import pytest
from nbformat import NotebookNode

import committed_outputs as file
import lesson_contract as lesson
import run_notebooks
from notebook_tools import HIDDEN, ROOT, WIDGET_MIME, code_cells, read, tags

SAMPLE = ROOT / "tests/notebooks/good/04_sample.ipynb"
FUNCTIONS = {  # of the package: its module, the lessons that build it by hand
    "record_activations": ("activations", [4]),
    "load_model": ("models", []),
    "next_token_probs": ("decoding", [7]),
    "LayerPicker": ("widgets", []),
}
MIMES = {"text": "text/plain", "html": "text/html", "png": "image/png", "svg": "image/svg+xml"}
MIMES["widget"] = WIDGET_MIME


def swap(nb: NotebookNode, old: str, new: str, times: int = 1) -> None:
    """Changes the first cell that holds the text."""
    for _ in range(times):
        cell = next(cell for cell in nb.cells if old in cell.source)
        cell.source = cell.source.replace(old, new, 1)


def retag(old: str, new: str, times: int = 1) -> Callable[[NotebookNode], None]:
    def change(nb: NotebookNode) -> None:
        for _ in range(times):
            next(cell for cell in nb.cells if old in tags(cell)).metadata.tags = [new]

    return change


def drop(text: str) -> Callable[[NotebookNode], None]:
    return lambda nb: nb.cells.remove(next(cell for cell in nb.cells if text in cell.source))


def drop_outputs(nb: NotebookNode) -> None:
    for cell in code_cells(nb):
        cell.outputs = []


def lengthen_all(nb: NotebookNode) -> None:
    for cell in nb.cells:
        cell.source += 9 * "\n1"


def two_long_cells(nb: NotebookNode) -> None:
    for text in ("seen = {}", "import time"):
        swap(nb, text, text + 13 * "\n0")


def add(kind: str, source: str, place: int = 99, times: int = 1) -> Callable[[NotebookNode], None]:
    def change(nb: NotebookNode) -> None:
        cell = getattr(nbformat.v4, f"new_{kind}_cell")(source)
        nb.cells[place:place] = [cell] * times

    return change


def code(*sources: str) -> list[tuple[str, str]]:
    """Changes, each of which puts another line of code in the place of one."""
    return [("import time", source) for source in sources]


def output(kind: str, **content: object) -> Callable[[NotebookNode], None]:
    """Gives the set-up cell one more output."""
    return lambda nb: nb.cells[1].outputs.append(nbformat.v4.new_output(kind, **content))


def show(**data: str) -> Callable[[NotebookNode], None]:
    return output("display_data", data={MIMES[kind]: content for kind, content in data.items()})


def printed(text: str, name: str = "stdout") -> Callable[[NotebookNode], None]:
    return output("stream", name=name, text=text)


IMPORT = "from tutorial_utils import record_activations"
NOT_YET = "from tutorial_utils import next_token_probs"
SETUP_END = '{model.dtype}")'
BIG = base64.b64encode(bytes(200_001)).decode()
# A rule, and changes that it has to notice: a text and what stands in its place, or a function.
BREAKS = [
    (lesson.has_title_and_question, ("# 04 ·", "# 4."), ("tests?*", "tests.*")),
    (lesson.says_what_it_takes, ("- move a widget.", ""), ("about 10 minutes", "not long")),
    (lesson.says_what_it_takes, ("**Read before**", "Read before")),
    (lesson.has_the_setup_cell, ("import torch\n", "import torch, os\n"), retag("setup", "varies")),
    (lesson.has_short_cells, ("seen = {}", "seen = {}\n" * 23), lengthen_all),
    (lesson.has_short_cells, ("count = ...", " "), two_long_cells),
    (lesson.has_as_much_text_as_code, add("markdown", "more", times=20)),
    (lesson.has_as_much_text_as_code, add("code", "more", times=20)),
    (lesson.asks_to_predict, ("**Predict first.**", "Guess."), add("markdown", "Not yet.", 3)),
    (lesson.explains_its_figures, ("**Notice:**", "Look:"), ("- there is one", "there is one")),
    (lesson.explains_its_figures, drop_outputs),
    (lesson.derives_by_hand_first, ("seen = {}", NOT_YET), *code(NOT_YET)),
    (lesson.derives_by_hand_first, ("record_activations", "other", 2), ("torch.equal", "print")),
    (lesson.derives_by_hand_first, (SETUP_END, f"{SETUP_END}\n{IMPORT}")),
    (lesson.derives_by_hand_first, retag("by-hand", "varies", 2)),
    (lesson.hooks_before_it_records, ("register_forward_hook", "register_hook")),
    (lesson.hooks_before_it_records, ("seen = {}", IMPORT)),
    (lesson.shows_widgets_last, *code("from tutorial_utils import LayerPicker"), drop_outputs),
    (lesson.shows_widgets_last, retag("widget", "varies")),
    (lesson.has_exercises, ("Exercise 2 ·", "Task 2 ·"), ("Exercise 2 ·", "Exercise 3 ·")),
    (lesson.has_exercises, ("(2 minutes, easy)", "(2 minutes)"), retag("check", "varies")),
    (lesson.has_exercises, ("count = ...", "count = 0"), ("check_count(", "try_count(", 2)),
    (lesson.has_exercises, ("<summary>Hint 2</summary>", "<summary>Hint</summary>")),
    (lesson.has_exercises, ("<summary>Hint 1</summary>\n", "<summary>Hint 1</summary>")),
    (lesson.has_exercises, ("```python", "```"), ("</details>", ""), drop("<summary>Solution")),
    (lesson.ends_as_it_should, drop("## Recap"), add("markdown", "## Afterword"), ("https://", "")),
    (lesson.ends_as_it_should, ("- That is all.", ""), ("is all.", "is all.\n- More.")),
    (lesson.ends_as_it_should, ("|---|---|---|", ""), ("(../docs/writing-a-lesson.md)", "")),
    (lesson.has_only_plain_python, *code("%matplotlib inline", "!pip install torch", "plt.show()")),
    (lesson.has_only_plain_python, *code("import tutorial_utils", "assert True")),
    (lesson.has_only_plain_python, *code("plt.rcParams['font.size'] = 9", "sys.path.append('..')")),
    (lesson.has_known_tags_and_links, retag("varies", "vary")),
    (lesson.has_known_tags_and_links, ("../docs/writing-a-lesson.md", "99_not_there.ipynb")),
    (file.is_a_valid_notebook, lambda nb: nb.cells[2].update(id=nb.cells[0].id)),
    (file.is_a_valid_notebook, lambda nb: nb.cells[1].pop("outputs")),
    (file.has_run_in_order, lambda nb: nb.cells[1].update(execution_count=None)),
    (file.has_run_in_order, lambda nb: nb.cells[1].update(execution_count=2)),
    (file.has_run_in_order, output("execute_result", execution_count=9)),
    (file.has_the_outputs_of_its_code, *code("import time as clock"), drop_outputs),
    (file.has_the_outputs_of_its_code, lambda nb: nb.metadata.pop("outputs_of")),
    (file.shows_no_error, output("error", ename="KeyError", evalue="", traceback=[])),
    (file.shows_no_error, printed("UserWarning: look out", "stderr")),
    (file.names_no_machine, printed("at /home/ada/tiny"), printed("at /root/.cache/huggingface")),
    (file.names_no_machine, printed("C:\\Users\\Ada"), printed("python3.11/site-packages/torch")),
    (file.names_no_machine, show(text="'/Users/ada/x'"), show(text="see", html="<b>/tmp/tiny</b>")),
    (
        file.names_no_machine,
        show(text="<f at 0x7f2a3c4d5e6f>"),
        *code("folder = '/workspace/tiny'"),
    ),
    (file.tells_no_secret, ("## Sources", "http://127.0.0.1:8888/lab?token=abc123")),
    (file.tells_no_secret, printed("hf_" + "aB3" * 10), *code("'https://ada:secret@example.org'")),
    (file.has_small_images, show(text="a", png=BIG), show(text="a", svg="<svg>" + "a" * 200_000)),
    (file.has_small_images, show(text="a", html=f"<img src='data:image/png;base64,{BIG}'>")),
    (file.reads_without_a_kernel, show(text="IntSlider(value=3)", widget="{}")),
    (file.reads_without_a_kernel, show(html="<b>no plain text</b>")),
    (file.has_no_trace_of_the_run, lambda nb: nb.metadata.update(widgets={})),
    (file.has_no_trace_of_the_run, lambda nb: nb.metadata.language_info.update(version="3.11.7")),
    (file.has_no_trace_of_the_run, lambda nb: nb.metadata.kernelspec.update(name="my-venv")),
    (file.has_no_trace_of_the_run, lambda nb: nb.cells[1].metadata.update(execution={"x": ""})),
    (file.hides_what_is_to_be_predicted, lambda nb: nb.cells[1].metadata.update(HIDDEN)),
    (
        file.hides_what_is_to_be_predicted,
        lambda nb: [c.metadata.pop("jupyter", 0) for c in nb.cells],
    ),
    (file.describes_its_figures, show(text="<Figure>", png="AAAA"), show(html="<img src='a'>")),
    (file.describes_its_figures, show(html='<img alt="Size of the last layer by token" src="a">')),
    (file.describes_its_figures, show(html='<img alt="1.png" src="a">')),
    (file.describes_its_figures, show(html='<img alt="A line. It rises. It ends at 3." src="a">')),
]


@pytest.mark.parametrize("rule", [*lesson.RULES, *file.RULES], ids=lambda rule: rule.__name__)
def test_a_rule_notices_what_breaks_it(rule, monkeypatch):
    monkeypatch.setattr(lesson, "package_functions", lambda: FUNCTIONS)
    number = [SAMPLE.stem[:2]] if rule in lesson.RULES else []
    assert list(rule(read(SAMPLE), *number)) == []
    changes = [change for broken, *changes in BREAKS for change in changes if broken is rule]
    assert changes
    for change in changes:
        nb = read(SAMPLE)
        swap(nb, *change) if isinstance(change, tuple) else change(nb)
        try:
            problems = list(rule(nb, *number))
        except SyntaxError:
            problems = ["this is no Python"]
        assert problems, f"{change} was not noticed"


def test_what_make_notebooks_leaves_can_be_committed():
    nb = read(SAMPLE)
    setup = nb.cells[1]
    setup.metadata.update(tags=[*setup.metadata.tags, "widget"], slideshow={"slide_type": "slide"})
    setup.metadata.update(execution={"iopub.status.busy": "2026-01-01"})
    nb.metadata.update(widgets={}, language_info={"name": "python", "version": "3.11.7"})
    for change in [printed("printed in "), printed("two messages\n")]:
        change(nb)
    show(text="IntSlider(value=3)", widget="{}")(nb)
    run_notebooks.clean(nb)
    assert not [problem for rule in file.RULES for problem in rule(nb)]
    *_, text, widget = setup.outputs
    assert text.text.endswith("printed in two messages\n")
    assert widget.data["text/plain"] == run_notebooks.INSTEAD_OF_WIDGET
    assert setup.metadata.slideshow == {"slide_type": "slide"}


def test_make_notebooks_leaves_no_trace_of_a_progress_bar():
    nb = read(SAMPLE)
    before = len(nb.cells[1].outputs)
    show(text="FloatProgress(value=1.0)", widget="{}")(nb)
    run_notebooks.clean(nb)
    assert len(nb.cells[1].outputs) == before
