"""What the explorers are made of: their box, their errors, the choice of layers.

Only what ipywidgets 7.7 and 8 both have, and no JavaScript of our own.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import html
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import ipywidgets as widgets
import torch
import traitlets
from IPython import get_ipython

from tutorial_utils.draw.described import counted

# `continuous_update` of a slider that Python moves too. With True the browser would send each such
# move back, too late, and undo what the reader has chosen since.
SYNC_WHILE_DRAGGING = False
# One click selects all of it.
COPIED = 'tabindex="0" style="user-select:all;overflow:auto;max-width:100%;line-height:1.4"'


class Explorer(widgets.VBox):
    """A box of controls and what they show, and on demand the code that gives the same result.

    `code` gives that code for the present state of the controls; a click shows it. `does` says in a
    few words what the reader can do. It is the plain text of the cell's output, which is all that
    can be seen if no kernel runs. ipywidgets would cut a `does` of more than 75 characters, so that
    is a ValueError.
    """

    def __init__(
        self,
        children: Sequence[widgets.Widget],
        does: str,
        code: Callable[[], str] | None = None,
    ) -> None:
        if len(does) > 75:
            raise ValueError(f"`does` may have at most 75 characters, not {len(does)}: {does!r}")
        self.does = does
        handle_in_cells_thread()
        parts = [*children, *(_code_shown(children, code) if code else ())]
        super().__init__(parts, layout=widgets.Layout(max_width="100%"))

    def __repr__(self) -> str:
        return f"Widget: {self.does}. Run this cell to use it."


def _code_shown(
    children: Sequence[widgets.Widget], code: Callable[[], str]
) -> tuple[widgets.Widget, widgets.Widget]:
    """A button and the text of `code()`, which follows all controls among `children`."""
    button = widgets.ToggleButton(
        description="Show the code", tooltip="code that gives the same result"
    )
    text = widgets.HTML(layout=widgets.Layout(max_width="100%"))

    def show(_: object = None) -> None:
        said = f"<pre {COPIED}>{escape(code())}</pre>"
        said += "Click the code, copy it, and paste it into a cell."
        text.value = said if button.value else ""

    def follow(control: widgets.Widget) -> None:
        for child in getattr(control, "children", ()):
            follow(child)
        if isinstance(control, widgets.Button):
            control.on_click(show)
        elif control.has_trait("value") and not isinstance(control, widgets.HTML):
            control.observe(show, "value")

    for control in (*children, button):
        follow(control)
    return button, text


@contextmanager
def errors_shown(
    message: widgets.HTML, doing: str = "", drawings: Sequence[widgets.DOMWidget] = ()
) -> Iterator[None]:
    """Show an error of a callback in `message`, in words, and raise it; clear the old message.

    `message` is `doing` for as long as the work takes. `drawings` are hidden while a message says
    why they do not show what the reader asked for; they keep their place, so that nothing jumps.
    Every callback reports its errors in this way: the browser tests look for the text, the notebook
    tests for the error itself.
    """
    message.value = escape(doing)
    try:
        yield
    except KeyboardInterrupt:
        message.value = "Stopped."
        raise
    except Exception as error:
        message.value = f"<b>This did not work:</b> {escape(str(error))}"
        raise
    finally:
        if message.value == escape(doing):
            message.value = ""
        for drawing in drawings:
            drawing.layout.visibility = "hidden" if message.value else None


def escape(text: str) -> str:
    """Text as HTML. Lone surrogates, which cannot be sent to the browser, become escapes."""
    return html.escape(text.encode(errors="backslashreplace").decode())


def handle_in_cells_thread() -> None:
    """Have the kernel handle the messages of widgets in the thread that runs the cells.

    JupyterLab 4.4 and newer with ipykernel 7 sends some of them to another thread, a "subshell".
    Two threads would then set one widget's values and use one model at the same time: a click is
    lost, or the hooks and random numbers of one callback reach the other. With this function the
    other thread waits, and the browser with it: it sends no further move until the last one is
    done.
    Every explorer calls this; it changes the running kernel once, for all of them.
    """
    handlers = getattr(getattr(get_ipython(), "kernel", None), "shell_handlers", {})
    handle = handlers.get("comm_msg")
    if handle is None or hasattr(handle, "__wrapped__"):  # no kernel, or it is done
        return
    if threading.current_thread() is not threading.main_thread():
        return  # made in a thread of the reader's own, or in a cell of a subshell
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return  # a kernel that runs its cells without a loop has no other threads either

    @functools.wraps(handle)
    def handle_there(*args: object) -> object:
        if threading.current_thread() is threading.main_thread():
            return handle(*args)
        done: concurrent.futures.Future[object] = concurrent.futures.Future()

        def work() -> None:
            before = signal.signal(signal.SIGINT, signal.default_int_handler)  # the stop button
            try:
                done.set_result(handle(*args))
            except BaseException as error:  # an interrupt would end the kernel here
                done.set_exception(error)
            finally:
                signal.signal(signal.SIGINT, before)

        loop.call_soon_threadsafe(work)
        while loop.is_running() and not done.done():  # a kernel that shuts down never gets to it
            concurrent.futures.wait([done], timeout=0.2)
        return done.result() if done.done() else None

    handlers["comm_msg"] = handle_there


def message_line() -> widgets.HTML:
    """A line for `errors_shown` that keeps its height when empty, so that nothing below jumps."""
    return widgets.HTML(layout=widgets.Layout(min_height="32px", max_width="100%"))


def check_logits(logits: torch.Tensor, whose: str) -> None:
    """`ValueError` if logits hold nan or inf, or only -inf. Some may be -inf: tokens ruled out."""
    if logits.isnan().any() or not logits.amax(dim=-1).isfinite().all():
        raise ValueError(
            f"{whose} are not finite: in float16 a model's numbers can become too large; load it "
            'with load_model(name, dtype="float32")'
        )


class LayerPicker(widgets.VBox):
    """Pick layers of a model; `value` is the tuple of their numbers, lowest first.

    `layers` are the numbers to choose from: `range(len(find_decoder_layers(model)) + 1)` for all of
    a model. At first `picked` are picked, or all of them if it is None. A reader can pick a range,
    every n-th layer of it, and single layers. One picker can serve several widgets, which `observe`
    its `value`; it can also be set. A layer that is not among `layers` is a ValueError.
    """

    value = traitlets.Tuple()

    def __init__(self, layers: Sequence[int], picked: Sequence[int] | None = None) -> None:
        self._layers = sorted(set(layers))
        if not self._layers:
            raise ValueError("there are no layers to pick from: give the number of at least one")
        last = len(self._layers) - 1
        self._told = widgets.HTML()
        self._range = widgets.SelectionRangeSlider(
            options=self._layers,
            index=(0, last),
            description="Range",
            continuous_update=SYNC_WHILE_DRAGGING,
            layout=widgets.Layout(width="320px", max_width="100%"),
        )
        self._every = widgets.BoundedIntText(
            value=1, min=1, max=last + 1, description="Every n-th", layout={"width": "160px"}
        )
        self._all = self._button("All", "pick every layer", self._layers)
        self._none = self._button("None", "pick no layer", ())
        self._boxes = {
            i: widgets.Checkbox(description=str(i), indent=False, layout={"width": "56px"})
            for i in self._layers
        }
        singles = widgets.HBox(
            [*self._boxes.values()], layout=widgets.Layout(flex_flow="row wrap", max_width="100%")
        )
        lines = [
            widgets.HBox([self._range, self._every, self._all, self._none]),
            widgets.HBox([widgets.HTML("Single layers"), singles]),
        ]
        for line in lines:
            line.layout = widgets.Layout(flex_flow="row wrap", max_width="100%")
        self._busy = False
        handle_in_cells_thread()
        super().__init__([self._told, *lines], layout=widgets.Layout(max_width="100%"))
        self.observe(self._show_value, "value")
        for control in (self._range, self._every):
            control.observe(self._pick_range, "value")
        for box in self._boxes.values():
            box.observe(self._pick_singles, "value")
        self.value = tuple(self._layers if picked is None else picked)
        self._show_value()

    @traitlets.validate("value")
    def _check(self, proposal: dict) -> tuple[int, ...]:
        picked = tuple(sorted(set(proposal["value"])))
        if not set(picked) <= set(self._layers):
            raise ValueError(f"picked {list(picked)}, but you can pick {self._names()}")
        return picked

    def _names(self) -> str:
        first, last = self._layers[0], self._layers[-1]
        if first < last and self._layers == list(range(first, last + 1)):
            return f"layers {first} to {last}"
        return ("layers " if first < last else "layer ") + ", ".join(map(str, self._layers))

    def _button(self, name: str, tooltip: str, numbers: Sequence[int]) -> widgets.Button:
        button = widgets.Button(description=name, tooltip=tooltip, layout={"width": "64px"})
        button.on_click(lambda _: setattr(self, "value", tuple(numbers)))
        return button

    def _in_range(self) -> tuple[int, ...]:
        low, high = self._range.index
        return tuple(self._layers[low : high + 1 : self._every.value])

    def _pick_range(self, _: object) -> None:
        if not self._busy:
            self.value = self._in_range()

    def _pick_singles(self, _: object) -> None:
        if not self._busy:
            self.value = tuple(i for i, box in self._boxes.items() if box.value)

    def _show_value(self, _: object = None) -> None:
        """Make all controls show what is picked, and ignore the changes that this causes."""
        self._busy = True
        try:
            for i, box in self._boxes.items():
                box.value = i in self.value
            if self.value and self.value != self._in_range():
                self._every.value = 1
                self._range.index = tuple(map(self._layers.index, (self.value[0], self.value[-1])))
            names = ", ".join(map(str, self.value)) or "none"
            total = f"{len(self.value)} of {counted(len(self._layers), 'layer')}"
            self._told.value = f"You can pick {self._names()}. Picked: <b>{names}</b> ({total})."
        finally:
            self._busy = False
