"""What a lesson's file must be before it is committed: each function yields what is wrong."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterator

import nbformat
from nbformat import NotebookNode

from figure_checks import count_sentences
from notebook_tools import (
    HIDDEN,
    KEPT,
    METADATA,
    WIDGET_MIME,
    code_cells,
    hash_sources,
    name_cell,
    to_be_predicted,
)

LARGEST_IMAGE = 200_000  # bytes
MACHINE_PATH = re.compile(
    r"(?<![\w./])/(home|root|Users|tmp|var|work|workspace|mnt|opt|usr|srv|private|content|data)/[\w.]"
    r"|\b[A-Z]:\\{1,2}(Users|Windows|Program|Temp)|/site-packages|\.venv/"
)
SECRET = re.compile(
    r"\bhf_[A-Za-z0-9]{16,}|\bsk-[\w-]{16,}|\bgh[opsu]_[A-Za-z0-9]{16,}|\bgithub_pat_\w{16,}"
    r"|\bAKIA[0-9A-Z]{16}\b|-----BEGIN [A-Z ]*PRIVATE KEY|\b[Bb]earer [\w.-]{16,}"
    r"|[?&](access_)?token=\w+|://[^/\s:@]+:[^/\s@]+@"
)
ADDRESS = re.compile(r"\bat 0x[0-9a-f]{6,}")
EMBEDDED = re.compile(r"data:image/[\w+.-]+;base64,([A-Za-z0-9+/=\s]+)")


def _mimes(nb: NotebookNode) -> Iterator[tuple[NotebookNode, str, str]]:
    """Each thing shown: its cell, its kind and its content."""
    for cell in code_cells(nb):
        for output in cell.outputs:
            if output.output_type == "stream":
                yield cell, output.name, output.text
            for mime, content in output.get("data", {}).items():
                yield cell, mime, content if isinstance(content, str) else str(content)


def _texts(nb: NotebookNode) -> Iterator[tuple[NotebookNode, str]]:
    """Everything to be read in the notebook: the cells, and their outputs without the images."""
    for cell in nb.cells:
        yield cell, cell.source
    for cell, mime, content in _mimes(nb):
        if not mime.startswith("image/") or mime == "image/svg+xml":
            yield cell, EMBEDDED.sub("", content)


def is_a_valid_notebook(nb: NotebookNode) -> Iterator[str]:
    ids = [cell.get("id") for cell in nb.cells]
    if None in ids or len(set(ids)) < len(ids):
        yield "each cell has an id of its own"
        return
    try:
        nbformat.validate(nb)
    except nbformat.ValidationError as error:
        yield str(error).split("\n")[0]


def has_run_in_order(nb: NotebookNode) -> Iterator[str]:
    counts = [cell.execution_count for cell in code_cells(nb)]
    if counts != list(range(1, len(counts) + 1)):
        yield f"the code cells have run in this order: {counts}"
    for cell in code_cells(nb):
        for output in cell.outputs:
            if output.get("execution_count", cell.execution_count) != cell.execution_count:
                yield f"{name_cell(nb, cell)} has an output of another run"


def has_the_outputs_of_its_code(nb: NotebookNode) -> Iterator[str]:
    if nb.metadata.get("outputs_of") != hash_sources(nb):
        yield "the code has changed since the outputs were made"
    if not any(cell.outputs for cell in code_cells(nb)):
        yield "there are no outputs"


def shows_no_error(nb: NotebookNode) -> Iterator[str]:
    for cell in code_cells(nb):
        for output in cell.outputs:
            if output.output_type == "error":
                yield f"{name_cell(nb, cell)} shows an error: {output.ename}"
            if output.get("name") == "stderr":
                yield f"{name_cell(nb, cell)} shows text on stderr: {output.text[:80]!r}"


def names_no_machine(nb: NotebookNode) -> Iterator[str]:
    for cell, text in _texts(nb):
        for found in MACHINE_PATH.finditer(text):
            yield f"{name_cell(nb, cell)} names a path: {text[found.start() : found.end() + 20]!r}"
        if ADDRESS.search(text):
            yield f"{name_cell(nb, cell)} shows an address in memory"


def tells_no_secret(nb: NotebookNode) -> Iterator[str]:
    for cell, text in _texts(nb):
        if SECRET.search(text):
            yield f"{name_cell(nb, cell)} holds what looks like a token or a password"


def has_small_images(nb: NotebookNode) -> Iterator[str]:
    for cell, mime, content in _mimes(nb):
        images = [content] if mime.startswith("image/") else EMBEDDED.findall(content)
        for image in images:
            size = len(image.encode() if mime == "image/svg+xml" else base64.b64decode(image))
            if size > LARGEST_IMAGE:
                yield f"{name_cell(nb, cell)} has an image of {size:,} bytes"


def reads_without_a_kernel(nb: NotebookNode) -> Iterator[str]:
    for cell in code_cells(nb):
        for output in cell.outputs:
            data = output.get("data", {"text/plain": ""})
            if WIDGET_MIME in data:
                yield f"{name_cell(nb, cell)} shows a widget, an empty box where no kernel runs"
            if "text/plain" not in data:
                yield f"{name_cell(nb, cell)} has an output with no plain text"


def has_no_trace_of_the_run(nb: NotebookNode) -> Iterator[str]:
    if {**nb.metadata, "outputs_of": None} != {**METADATA, "outputs_of": None}:
        yield f"the notebook's metadata is {dict(nb.metadata)}"
    for cell in nb.cells:
        if set(cell.metadata) - {*KEPT, *HIDDEN}:
            yield f"{name_cell(nb, cell)} has metadata of no use here: {list(cell.metadata)}"


def hides_what_is_to_be_predicted(nb: NotebookNode) -> Iterator[str]:
    predicted = to_be_predicted(nb)
    for cell in code_cells(nb):
        hidden = {key: cell.metadata[key] for key in HIDDEN if key in cell.metadata}
        if hidden != (HIDDEN if any(cell is one for one in predicted) else {}):
            yield f"{name_cell(nb, cell)}: an output is hidden where it answers a prediction only"


def describes_its_figures(nb: NotebookNode) -> Iterator[str]:
    for cell, mime, content in _mimes(nb):
        said = re.findall(r'<img alt="([^"]*)"', content) if mime == "text/html" else []
        shown = content.count("<img") if mime == "text/html" else mime.startswith("image/")
        short = [alt for alt in said if len(alt.split()) < 5 or not re.search(r"\d", alt)]
        if shown > len(said) or short:
            yield f"{name_cell(nb, cell)} has a figure without a description with its values"
        if any(count_sentences(html.unescape(alt)) > 2 for alt in said):
            yield f"{name_cell(nb, cell)} has a description of more than two sentences"


RULES = [
    is_a_valid_notebook,
    has_run_in_order,
    has_the_outputs_of_its_code,
    shows_no_error,
    names_no_machine,
    tells_no_secret,
    has_small_images,
    reads_without_a_kernel,
    has_no_trace_of_the_run,
    hides_what_is_to_be_predicted,
    describes_its_figures,
]
