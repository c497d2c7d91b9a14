"""A lesson in a running JupyterLab, as a person sees and uses it."""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nbformat
from playwright.sync_api import ConsoleMessage, Locator, Page, expect

from notebook_tools import new_notebook, read, tags

SCREENSHOTS = Path(__file__).parent / "screenshots"
SECONDS = 180  # for a lesson on a busy machine
TRACEBACK = "Traceback (most recent call last)"
NOT_WORKED = "This did not work:"

# Starts a clock at each key or click, and stops it one frame after the drawing has changed.
CLOCK = """(drawing) => {
  window.follow = [];
  let start = null;
  const begin = () => { start = performance.now(); };
  for (const kind of ["keydown", "pointerdown"]) document.addEventListener(kind, begin, true);
  new MutationObserver(() => {
    const begun = start;
    start = null;
    if (begun !== null)
      requestAnimationFrame(() => window.follow.push(performance.now() - begun));
  }).observe(drawing, { childList: true, subtree: true, characterData: true });
}"""


@dataclass
class Server:
    """Where JupyterLab listens, and the folder of the notebooks that it shows."""

    url: str
    token: str
    folder: Path

    def get(self, path: str) -> object:
        headers = {"Authorization": f"token {self.token}"}
        request = urllib.request.Request(f"{self.url}/{path}", headers=headers)
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.load(response)

    def answers(self) -> bool:
        try:
            return bool(self.get("api/status"))
        except urllib.error.URLError:
            return False

    def has_kernel(self, name: str) -> bool:
        """Whether the notebook has a kernel that is ready: JupyterLab says so too early."""
        return any(
            session["path"] == f"notebooks/{name}"
            and session["kernel"]["execution_state"] == "idle"
            for session in self.get("api/sessions")
        )


class LabPage:
    """One notebook in a page of its own; `problems()` tells what a test would otherwise miss."""

    def __init__(self, page: Page, server: Server, name: str) -> None:
        self.page, self.server, self.name = page, server, name
        self.nb = read(server.folder / name)
        self.console: list[str] = []
        self.elsewhere: list[str] = []
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.console.append(f"uncaught: {error}"))
        page.on("request", self._on_request)

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.console.append(message.text)

    def _on_request(self, request) -> None:
        if not request.url.startswith((self.server.url, "data:", "blob:")):
            self.elsewhere.append(request.url)

    def open(self) -> None:
        # A workspace of its own: the usual one opens again what was open in it before.
        path = f"lab/workspaces/{Path(self.name).stem}/tree/notebooks/{self.name}"
        self.page.goto(f"{self.server.url}/{path}?token={self.server.token}")
        expect(self.page.locator(".jp-Notebook")).to_be_visible(timeout=SECONDS * 1000)
        wait_until(lambda: self.server.has_kernel(self.name), "the notebook has no kernel")
        wait_until(lambda: self.cells.count() == len(self.nb.cells), "not all cells are there")

    def run_all(self) -> None:
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        self.wait_for_cells()

    def wait_for_cells(self) -> None:
        """Until each code cell has a number, or one has failed."""

        def is_done() -> bool:
            prompts = self.page.locator(".jp-CodeCell .jp-InputArea-prompt").all_text_contents()
            numbered = [bool(re.fullmatch(r"\[\d+\]:", text.strip())) for text in prompts]
            return all(numbered) or self.has_traceback()

        wait_until(is_done, "the cells did not run to the end")

    def has_traceback(self) -> bool:
        return self.page.locator(".jp-OutputArea-output", has_text=TRACEBACK).count() > 0

    def problems(self) -> list[str]:
        """Errors in outputs, widgets and the console, and what was asked of other machines."""
        errors = self.page.locator(".jp-OutputArea-output", has_text=TRACEBACK)
        found = [text[-500:] for text in errors.all_text_contents()]
        found += self.page.locator(".widget-html", has_text=NOT_WORKED).all_text_contents()
        found += [f"the browser's console: {text}" for text in self.console]
        found += [f"asked elsewhere: {url}" for url in self.elsewhere]
        return found

    @property
    def cells(self) -> Locator:
        return self.page.locator(".jp-Notebook .jp-Cell")

    def cell(self, wanted: str) -> Locator:
        """The code cell whose source holds `wanted`."""
        (place,) = [
            i
            for i, cell in enumerate(self.nb.cells)
            if cell.cell_type == "code" and wanted in cell.source
        ]
        return self.cells.nth(place)

    def widget_cells(self) -> list[Locator]:
        places = [i for i, cell in enumerate(self.nb.cells) if "widget" in tags(cell)]
        return [self.cells.nth(place) for place in places]

    def widget(self, function: str) -> Locator:
        """What a cell shows that calls `function`, scrolled to where it can be seen."""
        found = self.cell(f"{function}(").locator(".jp-OutputArea-output .jupyter-widgets").first
        found.scroll_into_view_if_needed()
        return found

    def time_moves(self, drawing: Locator, moves: list[Callable[[], None]]) -> list[float]:
        """Milliseconds from each move to a drawing that has changed, one frame after it has."""
        drawing.evaluate(CLOCK)
        for number, move in enumerate(moves, start=1):
            move()
            # Looked at in each frame, the page would draw for as long as the kernel works.
            self.page.wait_for_function(
                f"window.follow.length >= {number}", polling=50, timeout=30_000
            )
            self.page.wait_for_timeout(60)  # what else the move changes has time to come
            self.page.evaluate(f"window.follow.length = {number}")
        return self.page.evaluate("window.follow")

    def shoot(self, widget: Locator, name: str) -> None:
        widget.screenshot(path=SCREENSHOTS / f"{self.name[:2]}_{name}.png")


def run_cells(page: Page, server: Server, *sources: str) -> LabPage:
    """A notebook of these cells, run."""
    name = f"made_{len(list(server.folder.iterdir()))}.ipynb"
    nbformat.write(new_notebook(*sources, tags=("widget",)), server.folder / name)
    made = LabPage(page, server, name)
    made.open()
    made.run_all()
    return made


def wait_until(is_true: Callable[[], bool], otherwise: str, seconds: float = SECONDS) -> None:
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end, f"{otherwise} after {seconds:g} s"
        time.sleep(0.1)


def control(widget: Locator, label: str) -> Locator:
    """The row of a widget that has this label."""
    named = widget.page.locator(
        "label, .widget-label", has_text=re.compile(rf"^{re.escape(label)}$")
    )
    return widget.locator(".widget-inline-hbox, .widget-checkbox").filter(has=named)


def handles(widget: Locator, label: str) -> Locator:
    return control(widget, label).locator(".noUi-handle")


def press(handle: Locator, *keys: str) -> None:
    handle.focus()
    for key in keys:
        handle.page.keyboard.press(key)


def drag(handle: Locator, right: float) -> None:
    """Take a slider's handle with the mouse and move it by so many pixels."""
    box, mouse = handle.bounding_box(), handle.page.mouse
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    mouse.move(x, y)
    mouse.down()
    mouse.move(x + right, y, steps=12)
    mouse.up()


def type_line(field: Locator, text: str) -> None:
    """Type over what stands in a field, and press Enter."""
    field.fill(text)
    field.press("Enter")


def drawing(widget: Locator, holds: str) -> Locator:
    return widget.locator(".widget-html").filter(has=widget.page.locator(holds))


def button(widget: Locator, name: str) -> Locator:
    return widget.get_by_role("button", name=name, exact=True)


def cell(widget: Locator, label: str) -> Locator:
    """The cell of a grid that has this label; its number is written by CSS."""
    named = re.compile(rf"^{re.escape(label)}$")
    return widget.locator(".widget-toggle-buttons button").filter(has_text=named)


def cells_of(table: Locator) -> list[list[str]]:
    """The texts of a table's body, row by row."""
    texts = "row => [...row.children].map(cell => cell.textContent)"
    return table.locator("tbody").evaluate(f"body => [...body.rows].map({texts})")
