"""Every lesson in a real JupyterLab: it runs, its widgets are there, and nothing is amiss."""

from __future__ import annotations

import re

import nbformat
import pytest
from nbconvert import HTMLExporter
from playwright.sync_api import expect

from lab_page import SCREENSHOTS, LabPage, button, press, run_cells, wait_until
from notebook_tools import HIDDEN, LESSONS, NOTEBOOKS, lesson_on, new_notebook, read, tags

NAMES = [path.name for path in LESSONS]
WITH_WIDGETS = [
    path.name for path in LESSONS if any("widget" in tags(cell) for cell in read(path).cells)
]
ONE_LINE = re.compile(r"^\s*Widget: \S.*\. Run this cell to use it\.\s*$")


def test_the_first_thing_to_be_seen_is_the_first_lesson(page, server):
    """No box over it, no question, and nothing asked of other machines."""
    first = LabPage(page, server, NAMES[0])
    page.goto(f"{server.url}/lab/tree/notebooks/{NAMES[0]}?token={server.token}")
    wait_until(lambda: server.has_kernel(NAMES[0]), "the lesson has no kernel")
    page.wait_for_timeout(3000)  # JupyterLab asks its questions a little later
    page.screenshot(path=SCREENSHOTS / "first.png")
    expect(page.locator(".jp-Notebook h1").first).to_be_in_viewport()
    expect(page.locator(".jp-Dialog, .Toastify__toast")).to_have_count(0)
    assert first.problems() == []


@pytest.mark.parametrize("lesson", NAMES, indirect=True)
def test_runs_and_shows_its_widgets(lesson: LabPage):
    """What else can be wrong is looked for in the fixture, after each test."""
    for number, cell in enumerate(lesson.widget_cells()):
        output = cell.locator(".jp-OutputArea")
        if not output.locator(".jupyter-widgets").count():
            continue  # a cell that only uses what a widget has picked
        cell.scroll_into_view_if_needed()
        widget = output.locator(".jupyter-widgets").first
        expect(widget).to_be_visible()
        lesson.shoot(widget, f"widget_{number}")
        boxes = widget.locator(".jupyter-widgets").all()
        right = max(b["x"] + b["width"] for w in boxes if (b := w.bounding_box()))
        room = output.bounding_box()
        assert right <= room["x"] + room["width"] + 2, "wider than the notebook"
        assert not output.evaluate("e => e.scrollWidth > e.clientWidth + 1"), "has to be scrolled"


def test_some_lessons_have_widgets():
    subjects = ("tokenization", "softmax", "decoding", "hooks")
    assert set(WITH_WIDGETS) >= {lesson_on(subject).name for subject in subjects}


@pytest.mark.parametrize("lesson", WITH_WIDGETS, indirect=True)
def test_every_control_has_a_label_and_is_reached_with_the_keyboard(lesson: LabPage):
    unnamed = """cell => [...cell.querySelectorAll(".jp-OutputArea :is(" +
      "input, select, textarea, button, [role=slider])")].filter(control => {
        const row = control.closest(".widget-inline-hbox, .widget-checkbox");
        const label = row && row.querySelector("label, .widget-label");
        const name = control.textContent + (label ? label.textContent : "");
        return !name.trim() || (control.tabIndex < 0 && !control.disabled);
      }).map(control => control.outerHTML.slice(0, 200))"""
    for cell in lesson.widget_cells():
        assert cell.evaluate(unnamed) == []


@pytest.mark.parametrize("name", WITH_WIDGETS)
def test_without_a_kernel_the_figure_and_one_line_are_there(name, page, tmp_path):
    """As a static page with no network, made of the committed file."""
    nb = read(NOTEBOOKS / name)
    html, _ = HTMLExporter().from_notebook_node(nb)
    (tmp_path / "lesson.html").write_text(html, encoding="utf-8")
    page.context.set_offline(True)
    page.goto((tmp_path / "lesson.html").as_uri(), wait_until="load")
    assert page.locator(".jupyter-widgets, .widget-subarea").count() == 0
    cells = page.locator(".jp-Notebook > .jp-Cell, .jp-Cell")
    before = None
    for place, cell in enumerate(nb.cells):
        if cell.cell_type != "code":
            continue
        shown = cells.nth(place)
        if "widget" in tags(cell) and any("Widget: " in str(o) for o in cell.outputs):
            line = shown.locator(".jp-OutputArea-output")
            expect(line).to_have_count(1)
            expect(line).to_have_text(ONE_LINE)
            at_rest = before.locator(".jp-OutputArea img, .jp-OutputArea table").last
            at_rest.scroll_into_view_if_needed()
            assert at_rest.evaluate("drawn => drawn.complete !== false && drawn.offsetWidth > 300")
            page.screenshot(path=SCREENSHOTS / f"{name[:2]}_static_{place}.png")
        before = shown


BROKEN = """
import ipywidgets as widgets

from tutorial_utils.lessons.explorer import errors_shown, message_line

slider, message = widgets.IntSlider(description="Number"), message_line()


def divide(change):
    with errors_shown(message):
        1 / 0


slider.observe(divide, "value")
widgets.VBox([slider, message])
"""


def test_an_error_in_a_callback_is_seen_and_fails_a_test(page, server):
    broken = run_cells(page, server, BROKEN)
    assert broken.problems() == []
    page.locator(".noUi-handle").focus()
    page.keyboard.press("ArrowRight")
    wait_until(broken.problems, "nothing was seen of the error", 30)
    assert broken.problems() == ["This did not work: division by zero"]
    page.screenshot(path=SCREENSHOTS / "broken.png")


def test_an_error_in_a_cell_is_seen(page, server):
    raises = run_cells(page, server, "1 / 0")
    assert "ZeroDivisionError: division by zero" in "".join(raises.problems())


def test_the_console_and_the_network_are_watched(page, server):
    nbformat.write(nbformat.v4.new_notebook(), server.folder / "empty.ipynb")
    empty = LabPage(page, server, "empty.ipynb")
    page.route("https://cdn.invalid/**", lambda route: route.abort())
    page.goto("about:blank")  # a page of the server forbids such requests itself
    address = "https://cdn.invalid/widgets.js"
    page.evaluate(f"fetch('{address}').catch(() => console.error('no widgets'))")
    wait_until(lambda: len(empty.problems()) >= 2, "nothing was noticed", 10)
    told = "\n".join(empty.problems())
    assert f"asked elsewhere: {address}" in told
    assert "the browser's console: no widgets" in told


AT_ONCE = """
import threading
import time

import ipywidgets as widgets

from tutorial_utils.lessons.explorer import Explorer

sliders = [widgets.IntSlider(description=str(i)) for i in range(6)]
told, at_work, threads, together = widgets.HTML("0 moves"), 0, [threading.get_ident()], 0


def work(change):
    global at_work, together
    at_work += 1
    threads.append(threading.get_ident())
    time.sleep(0.2)
    together += at_work > 1
    at_work -= 1
    told.value = f"{len(threads) - 1} moves in {len(set(threads))} threads, {together} at once"


for slider in sliders:
    slider.observe(work, "value")
Explorer([*sliders, told], "move them")
"""


def test_callbacks_wait_for_each_other_and_for_a_cell(page, server):
    """JupyterLab sends a part of the moves to another thread of the kernel."""
    sleeps = "time.sleep(3)\nprint('moves while the cell ran:', len(threads) - before)"
    once = run_cells(page, server, AT_ONCE, f"before = len(threads)\n{sleeps}")
    for moves in range(2):
        for handle in page.locator(".noUi-handle").all():
            press(handle, "ArrowRight")
        told = f"{6 * (moves + 1)} moves in 1 threads, 0 at once"
        expect(page.locator(".widget-html", has_text="moves in")).to_have_text(told)
    once.cell("time.sleep(3)").locator(".cm-content").click()
    page.keyboard.press("Control+Enter")
    page.wait_for_timeout(500)
    for handle in page.locator(".noUi-handle").all():
        press(handle, "ArrowRight")
    expect(page.locator(".widget-html", has_text="moves in")).to_have_text(
        "18 moves in 1 threads, 0 at once"
    )
    expect(page.get_by_text("moves while the cell ran: 0")).to_have_count(1)
    assert once.problems() == []


SLOW = """
import time

import ipywidgets as widgets

from tutorial_utils.lessons.explorer import Explorer

slider, told = widgets.IntSlider(description="slow"), widgets.HTML("at rest")


def work(change):
    told.value = f"at work on {change.new}"
    if change.new == 2:
        for _ in range(600):
            time.sleep(0.1)


slider.observe(work, "value")
Explorer([slider, told], "move it")
"""


def test_the_stop_button_stops_a_callback(page, server):
    """And the kernel lives on: the next cell runs, and the widget works."""
    slow = run_cells(page, server, SLOW, "print('the next cell has run')")
    handle = page.locator(".noUi-handle")
    told = page.locator(".widget-html", has_text="at ")
    press(handle, "ArrowRight")
    expect(told).to_have_text("at work on 1")
    press(handle, "ArrowRight")  # this one goes to the other thread
    expect(told).to_have_text("at work on 2")
    slow.page.get_by_role("menuitem", name="Kernel", exact=True).click()
    slow.page.get_by_role("menuitem", name="Interrupt Kernel").click()
    slow.cell("the next cell").locator(".cm-content").click()
    page.keyboard.press("Control+Enter")
    expect(slow.cell("the next cell").locator(".jp-InputArea-prompt")).to_have_text("[3]:")
    press(handle, "ArrowRight")
    expect(told).to_have_text("at work on 3")


def test_the_answer_to_a_prediction_is_hidden_until_its_cell_has_run(page, server):
    nb = new_notebook("print('the', 'answer')")
    nb.cells[0].metadata |= nbformat.from_dict(HIDDEN)
    nb.cells[0].outputs = [nbformat.v4.new_output("stream", text="the answer\n")]
    nbformat.write(nb, server.folder / "asked.ipynb")
    asked = LabPage(page, server, "asked.ipynb")
    asked.open()
    answer = page.locator(".jp-OutputArea-output", has_text="the answer")
    expect(page.locator(".jp-OutputPlaceholder, .jp-Placeholder")).to_be_visible()
    expect(answer).not_to_be_visible()
    asked.run_all()
    expect(answer).to_be_visible()


PICKER = """
import time

from tutorial_utils.lessons.explorer import LayerPicker

picker = LayerPicker(range(12), picked=[1])
picker.observe(lambda _: time.sleep(0.03), "value")  # as long as a drawing takes
picker
"""
CLICK_ALL = """async boxes => {
  for (const [place, box] of boxes.entries()) {
    box.click();
    await new Promise(done => setTimeout(done, 7 * place));
  }
}"""


def test_no_click_is_lost_however_fast_they_come(page, server):
    """From all at once to slower than the picker is drawn: some come while it is drawn."""
    clicks = run_cells(page, server, PICKER)
    widget = clicks.cells.first
    boxes = widget.get_by_role("checkbox")
    expect(boxes).to_have_count(12)
    for _ in range(12):
        button(widget, "None").click()
        expect(widget).to_contain_text("Picked: none")
        boxes.evaluate_all(CLICK_ALL)
        expect(widget).to_contain_text("(12 of 12 layers)")
    assert clicks.problems() == []
