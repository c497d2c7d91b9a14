"""What all explorers share: their box, how errors are shown, the thread they run in, the picker."""

from __future__ import annotations

import asyncio
import signal
import threading
from importlib import import_module
from types import SimpleNamespace

import ipywidgets as widgets
import pytest
import torch

import tutorial_utils.lessons.explorer as module
from explorer_parts import find, inside, shown
from kernel_probe import _moves
from tiny_models import make_llama
from tutorial_utils import (
    encode,
    load_model,
    mean_differences,
    next_token_logits,
    read_activations,
    token_strings,
)
from tutorial_utils.lessons.activations import explore_activations
from tutorial_utils.lessons.contrast import explore_contrast
from tutorial_utils.lessons.decoding import step_decoding
from tutorial_utils.lessons.explorer import (
    Explorer,
    LayerPicker,
    check_logits,
    errors_shown,
    escape,
    message_line,
)
from tutorial_utils.lessons.layer import explore_attention
from tutorial_utils.lessons.lens import explore_lens
from tutorial_utils.lessons.patching import explore_patching, explore_steering
from tutorial_utils.lessons.softmax import explore_softmax
from tutorial_utils.lessons.tokens import explore_tokens

PROMPT, OTHER = "Anna has the red ball.", "Anna has the red lamp."


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """A function for each explorer that makes it on a tiny model."""
    model, tokenizer = load_model(make_llama(tmp_path_factory.mktemp("llama")))
    inputs = encode(model, tokenizer, PROMPT)
    activations = read_activations(model, **inputs)
    tokens = token_strings(tokenizer, inputs["input_ids"][0])
    logits = {PROMPT: next_token_logits(model, tokenizer, PROMPT)[0]}
    directions = mean_differences(model, tokenizer, ["Anna was glad."], ["Ben was sad."])
    return SimpleNamespace(
        model=model,
        tokens=lambda: explore_tokens(tokenizer),
        softmax=lambda: explore_softmax(logits, tokenizer),
        decoding=lambda: step_decoding(model, tokenizer, PROMPT),
        activations=lambda: explore_activations(activations, tokens),
        layer=lambda: explore_attention(model, tokenizer, PROMPT),
        lens=lambda: explore_lens(model, tokenizer, PROMPT),
        contrast=lambda: explore_contrast(model, tokenizer, PROMPT),
        patching_map=lambda: explore_patching(model, tokenizer, PROMPT, OTHER, ("Anna", "Ben")),
        patching=lambda: explore_steering(model, tokenizer, directions, PROMPT),
    )


# For each explorer a function that it calls, and a move that makes it do so, and one after that.
CALLS = {
    "tokens": ("token_rows", "Text", "x", "y"),
    "softmax": ("filtered_choice", "Temperature", 2.0, 1.0),
    "decoding": ("continue_prompt", "Prompt", "x", "y"),
    "activations": ("heatmap_html", "Token", 1, 2),
    "layer": ("read_attention", "Prompt", "x", "y"),
    "lens": ("lens_choices", "Prompt", "x", "y"),
    "contrast": ("logit_lens", "Prompt", "x", "y"),
    "patching": ("sample_steered", "Strength", 3, 4),
}


@pytest.mark.parametrize("name", CALLS)
def test_an_error_in_a_callback_is_shown_and_raised_and_hides_what_was_drawn(
    make, name, monkeypatch
):
    def broken(*args, **kwargs):
        raise RuntimeError("the model is gone: \ud800 <")

    function, control, first, then = CALLS[name]
    explorer = getattr(make, name)()
    drawn = max(inside(explorer), key=lambda widget: len(shown(widget)))
    assert shown(drawn)
    with monkeypatch.context() as patch:
        patch.setattr(import_module(f"tutorial_utils.lessons.{name}.explorer"), function, broken)
        with pytest.raises(RuntimeError, match="the model is gone"):
            find(explorer, control).value = first
    said = "<b>This did not work:</b> the model is gone: \\ud800 &lt;"
    assert said in shown(explorer)
    assert "<t" not in shown(explorer) and "data-token" not in shown(explorer)  # no table, no boxes
    find(explorer, control).value = then
    assert said not in shown(explorer) and shown(drawn)


@pytest.mark.parametrize("name", [*CALLS, "patching_map"])
def test_every_control_has_a_label(make, name):
    for control in inside(getattr(make, name)()):
        if hasattr(control, "disabled") and not isinstance(control, widgets.FloatProgress):
            assert control.description, control


@pytest.mark.parametrize("name", ["softmax", "activations"])
def test_moving_a_control_never_runs_the_model(make, name):
    explorer, calls = getattr(make, name)(), []
    handle = make.model.register_forward_hook(lambda *_: calls.append(1))
    try:
        for move in (move for control in inside(explorer) for move in _moves(control)):
            move()
    finally:
        handle.remove()
    assert calls == []


# Errors, and what stands in a widget's place.


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("layer 9 < 10"), "<b>This did not work:</b> layer 9 &lt; 10"),
        (KeyboardInterrupt(), "Stopped."),
    ],
)
def test_what_stopped_a_callback_is_said_raised_and_hides_what_is_not_finished(error, said):
    message, drawing = message_line(), widgets.HTML("a table")

    def callback() -> None:
        with errors_shown(message, "Reading <1> …", [drawing]):
            assert message.value == "Reading &lt;1&gt; …"
            raise error

    with pytest.raises(type(error)):
        callback()
    assert message.value == said and not shown(drawing)
    with errors_shown(message, "Reading …", [drawing]):
        assert not shown(drawing)
    assert message.value == "" and shown(drawing) == "a table"


def test_what_a_callback_says_stays_and_stands_in_place_of_a_drawing():
    message, drawing = message_line(), widgets.HTML("a table")
    with errors_shown(message, "Reading …", [drawing]):
        message.value = "Pick a layer."
    assert message.value == "Pick a layer." and not shown(drawing)


def test_what_is_shown_can_be_sent_to_the_browser():
    assert escape("a\ud800 é🙂 <b>&") == "a\\ud800 é🙂 &lt;b&gt;&amp;"
    escape("\udcff\0").encode()


def test_an_explorer_says_in_one_line_what_it_does():
    assert repr(Explorer([], "move it")) == "Widget: move it. Run this cell to use it."
    assert len(repr(Explorer([], "x" * 75))) <= 110  # ipywidgets cuts there
    with pytest.raises(ValueError, match="may have at most 75 characters, not 76"):
        Explorer([], "x" * 76)


def test_logits_may_be_minus_infinity_and_nothing_else_that_is_not_finite():
    check_logits(torch.tensor([[1.0, -torch.inf], [0.0, 2.0]]), "these")
    for wrong in ([1, torch.nan], [1, torch.inf], [-torch.inf, -torch.inf]):
        with pytest.raises(ValueError, match="these are not finite"):
            check_logits(torch.tensor([[0.0, 0.0], wrong]), "these")


@pytest.fixture
def kernel(monkeypatch):
    """A kernel that notes which thread handles a message.

    "fail" is an error in a callback, and "stop" the stop button while it runs.
    """
    handled = []

    def handle(message: str) -> None:
        handled.append((message, threading.get_ident()))
        if message == "fail":
            raise ValueError(message)
        if message == "stop":
            signal.raise_signal(signal.SIGINT)

    def send(message: str) -> None:
        try:
            found.shell_handlers["comm_msg"](message)
        except BaseException as error:
            found.errors.append(error)

    found = SimpleNamespace(shell_handlers={"comm_msg": handle}, handled=handled, handle=handle)
    found.send, found.errors = send, []
    monkeypatch.setattr(module, "get_ipython", lambda: SimpleNamespace(kernel=found))
    return found


@pytest.mark.parametrize("made", [lambda: Explorer([], "move it"), lambda: LayerPicker([0, 1])])
def test_messages_are_handled_in_the_thread_of_the_cells(kernel, made):
    """Also those that JupyterLab sends to another thread, in the middle of a cell."""

    async def cells() -> None:
        made()
        once = kernel.shell_handlers["comm_msg"]
        made()
        assert once is kernel.shell_handlers["comm_msg"] is not kernel.handle
        kernel.send("from the cell")
        others = [
            threading.Thread(target=kernel.send, args=[message])
            for message in ("fail", "stop", "moved")
        ]
        for other in others:
            other.start()
            other.join(timeout=0.1)
            assert other.is_alive(), "the browser is not kept waiting"
        assert len(kernel.handled) == 1, "a message is handled beside the cell"
        await asyncio.sleep(0.1)
        assert not any(other.is_alive() for other in others)

    loop, before = asyncio.new_event_loop(), signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:  # an idle kernel ignores the stop button
        loop.run_until_complete(cells())
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert [said for said, _ in kernel.handled] == ["from the cell", "fail", "stop", "moved"]
    assert {thread for _, thread in kernel.handled} == {threading.get_ident()}
    assert {type(error) for error in kernel.errors} == {ValueError, KeyboardInterrupt}
    loop.close()


@pytest.mark.parametrize("kernel_of", [object(), SimpleNamespace(kernel=object()), None])
def test_no_kernel_or_one_without_a_running_loop_is_left_as_it_is(monkeypatch, kernel, kernel_of):
    LayerPicker([0, 1])
    assert kernel.shell_handlers["comm_msg"] is kernel.handle
    monkeypatch.setattr(module, "get_ipython", lambda: kernel_of)
    assert LayerPicker([0, 1]).value == (0, 1)


def test_a_kernel_that_is_shut_down_waits_for_nothing(kernel):
    async def cell() -> None:
        LayerPicker([0, 1])

    loop = asyncio.new_event_loop()
    loop.run_until_complete(cell())
    other = threading.Thread(target=kernel.send, args=["too late"])
    other.start()
    other.join(timeout=20)
    assert not other.is_alive()
    loop.close()


# The layer picker.


def test_all_layers_are_picked_at_first_and_the_real_number_is_shown():
    picker = LayerPicker(range(9))
    assert picker.value == tuple(range(9))
    assert "layers 0 to 8" in shown(picker) and "(9 of 9 layers)" in shown(picker)
    assert "layers 0, 4, 8, 12" in shown(LayerPicker([0, 4, 8, 12]))
    # The browser would send late what Python has set, when another layer may have been picked.
    assert not find(picker, "Range").continuous_update


@pytest.mark.parametrize(
    ("layers", "ends", "picked", "every_second"),
    [
        (range(9), (2, 7), (2, 3, 4, 5, 6, 7), (2, 4, 6)),
        ([0, 4, 8, 12], (1, 3), (4, 8, 12), (4, 12)),
    ],
)
def test_a_range_and_every_nth_of_it(layers, ends, picked, every_second):
    picker = LayerPicker(layers)
    find(picker, "Range").index = ends
    assert picker.value == picked
    find(picker, "Every n-th").value = 2
    assert picker.value == every_second
    assert find(picker, "Range").index == ends  # stays where the reader has put it


def test_single_layers_all_and_none():
    picker = LayerPicker(range(5), picked=[1])
    find(picker, "3").value = True
    assert picker.value == (1, 3)
    find(picker, "1").value = False
    assert picker.value == (3,)
    find(picker, "None").click()
    assert picker.value == ()
    assert "Picked: <b>none</b> (0 of 5 layers)" in shown(picker)
    find(picker, "All").click()
    assert picker.value == (0, 1, 2, 3, 4)


def test_controls_follow_a_value_that_is_set():
    picker = LayerPicker(range(9))
    find(picker, "Every n-th").value = 3
    picker.value = [6, 2]
    assert picker.value == (2, 6)
    assert find(picker, "Range").value == (2, 6)
    assert find(picker, "Every n-th").value == 1
    assert [i for i in range(9) if find(picker, str(i)).value] == [2, 6]


def test_one_move_is_one_change():
    picker, changes = LayerPicker(range(9)), []
    picker.observe(lambda change: changes.append(change.new), "value")
    find(picker, "None").click()
    find(picker, "Range").index = (1, 2)
    find(picker, "4").value = True
    assert changes == [(), (1, 2), (1, 2, 4)]


def test_the_picker_says_what_is_wrong():
    with pytest.raises(ValueError, match=r"picked \[9\], but you can pick layers 0 to 8"):
        LayerPicker(range(9), picked=[9])
    picker = LayerPicker(range(9))
    with pytest.raises(ValueError, match=r"picked \[-1\], but"):
        picker.value = (-1,)
    assert len(picker.value) == 9
    with pytest.raises(ValueError, match="no layers to pick from"):
        LayerPicker([])
