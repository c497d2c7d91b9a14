"""The rules of docs/writing-a-lesson.md: each function yields what a lesson has wrong."""

from __future__ import annotations

import ast
import re
import statistics
import textwrap
from collections.abc import Iterator
from functools import cache
from itertools import pairwise

from nbformat import NotebookNode

from notebook_tools import NOTEBOOKS, ROOT, code_cells, lesson_on, name_cell, tags

PAGE = (ROOT / "docs/writing-a-lesson.md").read_text(encoding="utf-8")
SETUP = textwrap.dedent(re.search(r" *# Set-up: .*?(?=\n *```)", PAGE, re.S).group())
PACKAGE = "tutorial_utils"
WIDGETS = ("Explorer", "widgets.VBox")
TAGS = {"setup", "by-hand", "widget", "varies", "exercise", "check", "real", "spread"}
LAST_SECTIONS = ["Recap", "On Llama-3.1-8B", "Where to go next", "Sources"]
EXERCISE = re.compile(r"^## Exercise (\d) · \S.* \(\d+ minutes, (easy|medium|hard)\)$", re.M)
FOLDS = ["Hint 1", "Hint 2", "Solution"]
SOLUTION = re.compile(r"<summary>Solution</summary>\n\n.*?```python\n(.*?)\n```", re.S)
LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
FORBIDDEN = {
    r"^import tutorial_utils": "imports the whole package: `from tutorial_utils import ...`",
    r"\bsys\.path\b": "changes or reads sys.path",
    r"\bplt\.show\(": "calls plt.show()",
    r"\brcParams\b": "changes settings for all figures (rcParams)",
    r"\bpip3? install\b": "installs something",
    r"\bget_ipython\b": "calls IPython's own functions",
    r"^\s*[%!]\w": "has a magic or a shell command",
}


def _list_items(text: str) -> list[str]:
    return re.findall(r"^(?:[-*]|\d+\.) +\S.*$", text, re.M)


def sections(nb: NotebookNode) -> list[tuple[str, str, list[NotebookNode]]]:
    """What stands under each `##` heading, in order: title, text, code cells."""
    found: list[tuple[str, str, list[NotebookNode]]] = [("", "", [])]
    for cell in nb.cells:
        if cell.cell_type == "code":
            found[-1][2].append(cell)
            continue
        before, *parts = re.split(r"^## ", cell.source, flags=re.M)
        title, text, code = found[-1]
        found[-1] = (title, f"{text}\n{before}", code)
        for part in parts:
            title, _, text = part.partition("\n")
            found.append((title.strip(), text, []))
    return found[1:]


def exercises(nb: NotebookNode) -> list[tuple[NotebookNode, NotebookNode, str]]:
    """The stub cell, the check cell and the solution's source of each exercise."""
    found = []
    for i, cell in enumerate(nb.cells[:-2]):
        if "exercise" in tags(cell):
            solution = SOLUTION.search(nb.cells[i + 2].source)
            found.append((cell, nb.cells[i + 1], solution.group(1) if solution else ""))
    return found


def package_uses(cells: list[NotebookNode]) -> list[set[str]]:
    """For each code cell, the names imported from the package, there or before, that it uses."""
    imported: set[str] = set()
    uses = []
    for cell in cells:
        nodes = list(ast.walk(ast.parse(cell.source)))
        names = {node.id for node in nodes if isinstance(node, ast.Name)}
        for node in nodes:
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE):
                names |= {alias.name for alias in node.names}
                imported |= {alias.name for alias in node.names}
        uses.append(names & imported)
    return uses


@cache
def package_functions() -> dict[str, tuple[str, list[int]]]:
    """Each public function of the package: its module, and the lessons that derive it.

    In the place of the module stands "widgets" where what it makes is one.
    """
    found = {}
    for path in sorted((ROOT / "tutorial_utils").rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name[0] != "_":
                _, _, by_hand = (ast.get_docstring(node) or "").partition("By hand:")
                made = [node.returns] if isinstance(node, ast.FunctionDef) else node.bases
                widget = any(part and ast.unparse(part) in WIDGETS for part in made)
                lessons = lessons_on(by_hand.split("\n\n")[0])
                found[node.name] = ("widgets" if widget else path.stem, lessons)
    return found


def lessons_on(text: str) -> list[int]:
    """The numbers of the lessons that a text names by what they are on, "the lesson on hooks"."""
    subjects = re.findall(r"\blesson on ([\w -]+)", " ".join(text.split()))
    return [int(lesson_on(subject).stem[:2]) for subject in subjects]


def has_title_and_question(nb: NotebookNode, number: str) -> Iterator[str]:
    first = nb.cells[0].source
    if not re.match(rf"# {number} · \S", first):
        yield f"the first cell starts with `# {number} · Title`, not {first[:40]!r}"
    if not re.search(r"^\*[^*\n]+\?\*$", first, re.M):
        yield "the first cell has a line with the lesson's question in italics: `*What ...?*`"


def says_what_it_takes(nb: NotebookNode, number: str) -> Iterator[str]:
    first = nb.cells[0].source
    _, _, after = first.partition("**What you will be able to do**")
    points = _list_items(after.split("\n**")[0])
    if not 3 <= len(points) <= 5:
        yield f"`**What you will be able to do**` has 3 to 5 points, not {len(points)}"
    if not re.search(r"^\*\*Time\*\*: .*\d+ minutes", first, re.M):
        yield "the first cell has a line `**Time**: about 40 minutes.`"
    if not re.search(r"^\*\*Read before\*\*: \S", first, re.M):
        yield "the first cell has a line `**Read before**: ...`"


def has_the_setup_cell(nb: NotebookNode, number: str) -> Iterator[str]:
    first = code_cells(nb)[0]
    if first.source != SETUP:
        yield "the first code cell is not the set-up cell of docs/writing-a-lesson.md"
    if [cell for cell in nb.cells if "setup" in tags(cell)] != [first]:
        yield "the first code cell, and no other, has the tag `setup`"


def has_short_cells(nb: NotebookNode, number: str) -> Iterator[str]:
    lessons_own = [cell for cell in code_cells(nb) if cell.source != SETUP]
    lengths = [len(cell.source.split("\n")) for cell in lessons_own]
    for cell, length in zip(lessons_own, lengths, strict=True):
        if length > 25:
            yield f"{name_cell(nb, cell)} has {length} lines of code: 25 at most"
    long = sum(length > 15 for length in lengths)
    if long > max(1, len(lengths) // 10):
        yield f"{long} of {len(lengths)} code cells have more than 15 lines: one in ten at most"
    if statistics.median(lengths) > 8:
        yield f"the median code cell has {statistics.median(lengths):g} lines: 8 at most"
    for cell in nb.cells:
        if not cell.source.strip():
            yield f"{name_cell(nb, cell)} is empty"


def has_as_much_text_as_code(nb: NotebookNode, number: str) -> Iterator[str]:
    code = len(code_cells(nb))
    ratio = sum(cell.cell_type == "markdown" for cell in nb.cells) / code
    if not 0.8 <= ratio <= 2:
        yield f"{ratio:.2f} text cells to each code cell: between 0.8 and 2"


def asks_to_predict(nb: NotebookNode, number: str) -> Iterator[str]:
    asked = False
    for cell, after in pairwise(nb.cells):
        if cell.cell_type == "markdown" and "**Predict first.**" in cell.source:
            asked = True
            if after.cell_type != "code":
                yield f"{name_cell(nb, cell)} says `**Predict first.**`: a code cell comes next"
    if not asked:
        yield "no text cell says `**Predict first.**`"


def explains_its_figures(nb: NotebookNode, number: str) -> Iterator[str]:
    figures = 0
    for cell, after in pairwise([*nb.cells, NotebookNode(cell_type="none", source="")]):
        if not draws(cell) or {"widget", "exercise", "check"} & set(tags(cell)):
            continue
        figures += 1
        told = after.cell_type == "markdown" and after.source.partition("**Notice:**")[2]
        if not told or not _list_items(told):
            yield f"{name_cell(nb, cell)} draws: a text cell with `**Notice:**` and a list follows"
    if not figures:
        yield "no cell has a figure in its outputs"


def draws(cell: NotebookNode) -> bool:
    return any(
        mime.startswith("image/") or (mime == "text/html" and "<img" in content)
        for output in cell.get("outputs", [])
        for mime, content in output.get("data", {}).items()
    )


def _mimes(output: NotebookNode) -> list[str]:
    return list(output.get("data", {}))


def derives_by_hand_first(nb: NotebookNode, number: str) -> Iterator[str]:
    cells, lesson = code_cells(nb), int(number)
    uses = package_uses(cells)
    by_hand = [i for i, cell in enumerate(cells) if "by-hand" in tags(cell)]
    if not by_hand:
        yield "no code cell has the tag `by-hand`"
    for i in by_hand:
        # A description is for readers who do not see the figure: nothing of the idea is in it.
        functions = sorted((uses[i] & {*package_functions()}) - {"describe_figure"})
        if functions:
            yield f"{name_cell(nb, cells[i])} is `by-hand` and uses {', '.join(functions)}"
    for function, (_, lessons) in package_functions().items():
        used = [i for i, names in enumerate(uses) if function in names]
        if lesson in lessons and not used:
            yield f"{function} says that it is made by hand here, and is not used"
        elif lesson in lessons:
            if not any(i < used[0] for i in by_hand):
                yield f"{function} is used before any `by-hand` cell"
            near = "\n".join(cell.source for cell in cells[used[0] : used[0] + 3])
            if not re.search(r"equal|allclose|assert_close|==", near):
                yield f"nothing compares {function} with what was made by hand"
        elif used and lesson and lessons and lesson < min(lessons):
            yield f"{function} is used here and made by hand only in {min(lessons):02}"


def hooks_before_it_records(nb: NotebookNode, number: str) -> Iterator[str]:
    if int(number) not in package_functions()["record_activations"][1]:
        return
    hooks, recorder = (
        next((i for i, cell in enumerate(code_cells(nb)) if name in cell.source), None)
        for name in ("register_forward_hook", "record_activations")
    )
    if hooks is None or recorder is None or hooks >= recorder:
        yield "`register_forward_hook` comes in a cell before the first with `record_activations`"


def shows_widgets_last(nb: NotebookNode, number: str) -> Iterator[str]:
    widgets = {name for name, (module, _) in package_functions().items() if module == "widgets"}
    before = None
    for cell, uses in zip(code_cells(nb), package_uses(code_cells(nb)), strict=True):
        if (uses & widgets or "ipywidgets" in cell.source) and "widget" not in tags(cell):
            yield f"{name_cell(nb, cell)} uses widgets: it has the tag `widget`"
        if "widget" in tags(cell):
            shown = [mime for output in before.outputs for mime in _mimes(output)] if before else []
            if not any(mime.startswith("image/") or mime == "text/html" for mime in shown):
                yield f"{name_cell(nb, cell)}: the code cell before it draws the same at rest"
        before = cell


def has_exercises(nb: NotebookNode, number: str) -> Iterator[str]:
    headings = [c for c in nb.cells if re.match(r"#+ Exercise", c.source) and c.cell_type != "code"]
    stubs = [cell for cell in nb.cells if "exercise" in tags(cell)]
    checks = [cell for cell in nb.cells if "check" in tags(cell)]
    if not 2 <= len(headings) <= 4 or not len(headings) == len(stubs) == len(checks):
        yield (
            f"2 to 4 exercises, each with heading, stub and check: this has {len(headings)} "
            f"headings, {len(stubs)} stubs and {len(checks)} checks"
        )
    for place, heading in enumerate(headings, start=1):
        i = nb.cells.index(heading)
        found = EXERCISE.match(heading.source)
        if not found or int(found.group(1)) != place:
            yield f"exercise {place}: heading `## Exercise {place} · Title (10 minutes, easy)`"
        if [tags(cell) for cell in nb.cells[i + 1 : i + 3]] != [["exercise"], ["check"]]:
            yield f"exercise {place}: after the text come cells with the tags `exercise`, `check`"
            continue
        stub, check, folds = nb.cells[i + 1 : i + 4]
        if not any(
            isinstance(node, ast.Constant) and node.value is ...
            for node in ast.walk(ast.parse(stub.source))
        ):
            yield f"exercise {place}: the stub has a `...` for the reader to replace"
        if not re.search(r"\bcheck_\w+\(", check.source):
            yield f"exercise {place}: the check cell calls a function `check_...`"
        if re.findall(r"<summary>(.*?)</summary>", folds.source) != FOLDS:
            yield f"exercise {place}: after the check come folds with the summaries {FOLDS}"
        if not SOLUTION.search(folds.source):
            yield f"exercise {place}: the solution is a ```python block"
        if folds.source.count("<details>") != 3 or folds.source.count("</details>") != 3:
            yield f"exercise {place}: each fold starts with <details> and ends with </details>"
        if re.search(r"</summary>\n(?!\n)|[^\n]\n</details>", folds.source):
            yield f"exercise {place}: empty lines after </summary> and before </details>"


def ends_as_it_should(nb: NotebookNode, number: str) -> Iterator[str]:
    *_, recap, llama, after, sources = [("", "", [])] * 4 + sections(nb)
    titles = [title for title, _, _ in (recap, llama, after, sources)]
    if titles != LAST_SECTIONS:
        yield f"the last sections are {LAST_SECTIONS}, not {titles}"
    lines = [line for line in recap[1].split("\n") if line.strip()]
    if recap[2] or len(lines) != 5 or len(_list_items("\n".join(lines))) != 5:
        yield "the recap is a list of five points, one line each"
    shown = [
        str(text)
        for cell in llama[2]
        for output in cell.outputs
        for text in (output.get("text", ""), *output.get("data", {}).values())
    ]
    table = re.search(r"^\|.*\|\n\|[ :|-]+\|$", llama[1], re.M)
    if not table and not any("<table" in text or text.count("|") >= 4 for text in shown):
        yield "`On Llama-3.1-8B` has no table"
    if not LINK.search(after[1]):
        yield "`Where to go next` has no link"
    if "https://" not in sources[1]:
        yield "`Sources` has no link"


def has_only_plain_python(nb: NotebookNode, number: str) -> Iterator[str]:
    for cell in code_cells(nb):
        for pattern, what in FORBIDDEN.items():
            if re.search(pattern, cell.source, re.M):
                yield f"{name_cell(nb, cell)} {what}"
        if any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(cell.source))):
            yield f"{name_cell(nb, cell)} has an assert: print the comparison instead"


def has_known_tags_and_links(nb: NotebookNode, number: str) -> Iterator[str]:
    for cell in nb.cells:
        for tag in set(tags(cell)) - TAGS:
            yield f"{name_cell(nb, cell)} has the unknown tag {tag!r}"
        if cell.cell_type == "markdown":
            for target in LINK.findall(cell.source):
                file = target.partition("#")[0]
                if file and "://" not in file and not (NOTEBOOKS / file).exists():
                    yield f"{name_cell(nb, cell)} links to {target}, which is not there"


RULES = [
    has_title_and_question,
    says_what_it_takes,
    has_the_setup_cell,
    has_short_cells,
    has_as_much_text_as_code,
    asks_to_predict,
    explains_its_figures,
    derives_by_hand_first,
    hooks_before_it_records,
    shows_widgets_last,
    has_exercises,
    ends_as_it_should,
    has_only_plain_python,
    has_known_tags_and_links,
]
