"""The widgets without a browser: what a control changes, and what is shown when it goes wrong."""

from __future__ import annotations

import asyncio
import signal
import threading
from types import SimpleNamespace

import ipywidgets as widgets
import pytest
import torch

import tutorial_utils.lessons.activations.explorer
import tutorial_utils.lessons.decoding.explorer
import tutorial_utils.lessons.explorer
import tutorial_utils.lessons.softmax.explorer
import tutorial_utils.lessons.tokens.explorer
from kernel_probe import _moves
from tiny_models import make_gpt2, make_llama
from tutorial_utils import load_model, next_token_logits, record_activations, token_strings
from tutorial_utils.lessons.activations.explorer import explore_activations
from tutorial_utils.lessons.decoding.explorer import continuation_html, step_decoding
from tutorial_utils.lessons.decoding.steps import continue_prompt
from tutorial_utils.lessons.explorer import Explorer, LayerPicker, errors_shown, message_line
from tutorial_utils.lessons.softmax.explorer import explore_softmax, filtered_choice, tell_choice
from tutorial_utils.lessons.tokens.explorer import explore_tokens, token_rows, tokens_html
from tutorial_utils.measures import largest_coordinates, layer_similarity

PROMPT = "Anna has the red ball."


@pytest.fixture(scope="module", params=[make_llama, make_gpt2], ids=["llama", "gpt2"])
def loaded(request, tmp_path_factory):
    return load_model(str(request.param(tmp_path_factory.mktemp("model"), context=32)))


@pytest.fixture(scope="module")
def activations(loaded):
    model, tokenizer = loaded
    ids = tokenizer(PROMPT, return_tensors="pt")
    with record_activations(model) as recorded, torch.no_grad():
        model(**ids)
    return recorded, token_strings(tokenizer, ids["input_ids"][0])


def inside(widget: widgets.Widget) -> list[widgets.Widget]:
    """The widget and all that stands in it, from top to bottom."""
    children = getattr(widget, "children", ())
    return [widget, *(found for child in children for found in inside(child))]


def find(widget: widgets.Widget, description: str) -> widgets.Widget:
    """The one control of that name."""
    (found,) = [w for w in inside(widget) if getattr(w, "description", None) == description]
    return found


def shown(widget: widgets.Widget) -> str:
    return "\n".join(w.value for w in inside(widget) if isinstance(w, widgets.HTML))


# Errors, and what stands in a widget's place.


def test_an_error_is_shown_in_words_and_raised():
    message = message_line()
    with pytest.raises(ValueError), errors_shown(message):
        raise ValueError("layer 9 < 10")
    assert message.value == "<b>This did not work:</b> layer 9 &lt; 10"
    with errors_shown(message):
        pass
    assert message.value == ""


def test_work_in_progress_is_shown_until_it_is_done():
    message = message_line()
    with errors_shown(message, "Reading <1> …"):
        assert message.value == "Reading &lt;1&gt; …"
    assert message.value == ""


def test_the_stop_button_is_no_error():
    message = message_line()
    with pytest.raises(KeyboardInterrupt), errors_shown(message, "Reading …"):
        raise KeyboardInterrupt
    assert message.value == "Stopped."


def test_what_a_callback_says_stays():
    message = message_line()
    with errors_shown(message, "Reading …"):
        message.value = "Pick a layer."
    assert message.value == "Pick a layer."


def test_an_explorer_says_in_one_line_what_it_does():
    assert repr(Explorer([], "move it")) == "Widget: move it. Run this cell to use it."
    assert len(repr(Explorer([], "x" * 75))) <= 110  # ipywidgets cuts there
    with pytest.raises(ValueError, match="76 characters, at most 75 fit"):
        Explorer([], "x" * 76)


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

    found = SimpleNamespace(shell_handlers={"comm_msg": handle}, handled=handled, handle=handle)
    found.send = lambda message: found.shell_handlers["comm_msg"](message)
    found.errors = []

    def send_and_note(message: str) -> None:
        try:
            found.send(message)
        except BaseException as error:
            found.errors.append(error)

    found.send_and_note = send_and_note
    monkeypatch.setattr(
        tutorial_utils.lessons.explorer, "get_ipython", lambda: SimpleNamespace(kernel=found)
    )
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
            threading.Thread(target=kernel.send_and_note, args=[message])
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
def test_no_kernel_or_another_kind_of_kernel_is_left_as_it_is(monkeypatch, kernel_of):
    monkeypatch.setattr(tutorial_utils.lessons.explorer, "get_ipython", lambda: kernel_of)
    assert LayerPicker([0, 1]).value == (0, 1)


def test_a_kernel_without_a_running_loop_is_left_as_it_is(kernel):
    LayerPicker([0, 1])
    assert kernel.shell_handlers["comm_msg"] is kernel.handle


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
    assert "layers 0 to 8" in shown(picker) and "(9 of 9)" in shown(picker)


def test_a_range_and_every_nth_of_it():
    picker = LayerPicker(range(9))
    find(picker, "Range").index = (2, 7)
    assert picker.value == (2, 3, 4, 5, 6, 7)
    find(picker, "Every n-th").value = 2
    assert picker.value == (2, 4, 6)
    assert find(picker, "Range").index == (2, 7)  # stays where the reader has put it


def test_single_layers_all_and_none():
    picker = LayerPicker(range(5), picked=[1])
    find(picker, "3").value = True
    assert picker.value == (1, 3)
    find(picker, "1").value = False
    assert picker.value == (3,)
    find(picker, "None").click()
    assert picker.value == ()
    assert "Picked: <b>none</b> (0 of 5)" in shown(picker)
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


def test_layers_with_gaps():
    picker = LayerPicker([0, 4, 8, 12])
    assert "layers 0, 4, 8, 12" in shown(picker)
    find(picker, "Range").index = (1, 3)
    find(picker, "Every n-th").value = 2
    assert picker.value == (4, 12)


def test_what_is_set_from_python_is_not_sent_back():
    """The browser sends it late, when another layer may have been picked."""
    assert not find(LayerPicker(range(4)), "Range").continuous_update


def test_the_picker_says_what_is_wrong():
    with pytest.raises(ValueError, match=r"picked \[9\], but there are layers 0 to 8"):
        LayerPicker(range(9), picked=[9])
    picker = LayerPicker(range(9))
    with pytest.raises(ValueError, match=r"picked \[-1\], but"):
        picker.value = (-1,)
    assert len(picker.value) == 9
    with pytest.raises(ValueError, match="no layers to pick from"):
        LayerPicker([])


def test_one_picker_serves_two_widgets(activations):
    picker = LayerPicker(list(activations[0]))
    two = [explore_activations(*activations, picker) for _ in range(2)]
    picker.value = (1, 2)
    assert all("layer 2" in shown(w) and "layer 3" not in shown(w) for w in two)


# The explorers.


def test_tokens_follow_what_is_typed(loaded):
    tokenizer = loaded[1]
    explorer = explore_tokens(tokenizer, "Anna")
    for text in ("Anna 🙂", "", "<b>"):
        find(explorer, "Text").value = text
        assert tokens_html(token_rows(tokenizer, text)) in shown(explorer)
        assert f"<b>{len(text.encode())}</b> bytes" in shown(explorer)
        assert f"<b>{len(tokenizer(text)['input_ids'])}</b> tokens" in shown(explorer)


def test_bars_follow_the_sliders(loaded):
    model, tokenizer = loaded
    rows = {text: next_token_logits(model, tokenizer, text)[0] for text in (PROMPT, "Anna")}
    explorer = explore_softmax(rows, tokenizer)
    at_rest = shown(explorer)
    assert tell_choice(filtered_choice(rows[PROMPT])) in at_rest
    find(explorer, "Temperature").value = 0.5
    find(explorer, "Top-k (0: all)").value = 7
    find(explorer, "Top-p (1: all)").value = 0.8
    find(explorer, "Min-p (0: all)").value = 0.1
    settings = {"temperature": 0.5, "top_k": 7, "top_p": 0.8, "min_p": 0.1}
    assert tell_choice(filtered_choice(rows[PROMPT], **settings)) in shown(explorer)
    find(explorer, "Prompt").value = "Anna"
    assert tell_choice(filtered_choice(rows["Anna"], **settings)) in shown(explorer)
    find(explorer, "Prompt").value = PROMPT
    find(explorer, "Start again").click()
    assert shown(explorer) == at_rest


def test_softmax_explorer_needs_logits(loaded):
    with pytest.raises(ValueError, match="there are no logits"):
        explore_softmax({}, loaded[1])


def test_every_view_follows_layers_and_token(activations):
    explorer = explore_activations(*activations)
    picker = explorer.children[0]
    picker.value = (1, 3)
    find(explorer, "Token").value = 2
    find(explorer, "View").value = "largest coordinates"
    places, values = largest_coordinates(activations[0], (1, 3), position=2)
    assert f"{places[0, 0]}: {values[0, 0]:.3g}" in shown(explorer)
    find(explorer, "View").value = "similarity between layers"
    assert f"{layer_similarity(activations[0], (1, 3), position=2)[0, 1]:.2f}" in shown(explorer)
    find(explorer, "View").value = "distance from the layer before"
    assert "1 → 3" in shown(explorer)
    before = shown(explorer).count("<th scope")
    find(explorer, "Leave the first token out").value = False
    assert shown(explorer).count("<th scope") == before + 1


def test_too_few_layers_is_a_hint_and_no_error(activations):
    explorer = explore_activations(*activations)
    find(explorer, "None").click()
    assert "Pick 1 layers or more" in shown(explorer)
    find(explorer, "View").value = "similarity between layers"
    find(explorer, "2").value = True
    assert "Pick 2 layers or more" in shown(explorer)
    find(explorer, "3").value = True
    assert "Pick" not in shown(explorer).replace("Picked", "")


def test_moving_a_control_never_runs_the_model(loaded, activations):
    model, tokenizer = loaded
    logits = {PROMPT: next_token_logits(model, tokenizer, PROMPT)[0]}
    explorers = [explore_activations(*activations), explore_softmax(logits, tokenizer)]
    calls = []
    handle = model.register_forward_hook(lambda *_: calls.append(1))
    try:
        for control in (w for explorer in explorers for w in inside(explorer)):
            for move in _moves(control):
                move()
    finally:
        handle.remove()
    assert calls == []


def candidates(explorer: Explorer) -> list[widgets.Button]:
    rows = [w for w in inside(explorer) if isinstance(w, widgets.FloatProgress)]
    boxes = [w for w in inside(explorer) if set(getattr(w, "children", ())) & set(rows)]
    return [box.children[0] for box in boxes if isinstance(box.children[0], widgets.Button)]


def test_a_candidate_that_is_clicked_is_the_next_token(loaded):
    model, tokenizer = loaded
    explorer = step_decoding(model, tokenizer, PROMPT)
    first = continue_prompt(model, tokenizer, PROMPT)
    ids = first.logits.topk(8).indices.tolist()
    bars = [w.value for w in inside(explorer) if isinstance(w, widgets.FloatProgress)]
    assert bars == pytest.approx(first.logits.softmax(-1)[ids].tolist())
    candidates(explorer)[2].click()
    step = continue_prompt(model, tokenizer, PROMPT, [ids[2]])
    text = continuation_html(PROMPT, token_strings(tokenizer, [ids[2]]), step)
    assert text in shown(explorer)
    assert "<b>1</b> new token." in text
    find(explorer, "Step back").click()
    assert "No new token yet." in shown(explorer)
    assert find(explorer, "Step back").disabled


def test_greedy_strategy_is_greedy(loaded):
    model, tokenizer = loaded
    explorer = step_decoding(model, tokenizer, PROMPT)
    chosen = []
    for _ in range(3):
        chosen.append(int(continue_prompt(model, tokenizer, PROMPT, chosen).logits.argmax()))
        find(explorer, "Choose one").click()
    step = continue_prompt(model, tokenizer, PROMPT, chosen)
    assert continuation_html(PROMPT, token_strings(tokenizer, chosen), step) in shown(explorer)


def test_draws_are_the_same_each_time_and_from_what_the_strategy_keeps(loaded):
    explorer, texts = step_decoding(*loaded, PROMPT), []
    find(explorer, "Strategy").value = "sample, top-k 5"
    assert shown(explorer).count("the strategy drops it") == 3  # of the eight candidates
    for _ in range(2):
        find(explorer, "Choose ten").click()
        texts.append(shown(explorer))
        find(explorer, "Start again").click()
    assert texts[0] == texts[1]


def test_a_text_that_has_ended_takes_no_more(loaded):
    model, tokenizer = loaded
    explorer = step_decoding(model, tokenizer, PROMPT)
    for _ in range(4):  # the context holds 32 tokens
        find(explorer, "Choose ten").click()
    assert "The text has ended" in shown(explorer)
    assert find(explorer, "Choose one").disabled and candidates(explorer)[0].disabled
    find(explorer, "Step back").click()
    assert not find(explorer, "Choose one").disabled
    assert "The text has ended" not in shown(explorer)


@pytest.mark.parametrize(("prompt", "told"), [("", "is empty"), ("word " * 99, "is too long")])
def test_a_prompt_that_cannot_be_read_is_told_and_can_be_mended(loaded, prompt, told):
    explorer = step_decoding(*loaded, PROMPT)
    find(explorer, "Prompt").value = prompt
    assert told in shown(explorer)
    assert find(explorer, "Choose one").disabled and find(explorer, "Step back").disabled
    find(explorer, "Prompt").value = "Anna"
    assert told not in shown(explorer) and not find(explorer, "Choose one").disabled


BREAK = {
    "tokens": (tutorial_utils.lessons.tokens.explorer, "token_rows", "Text", "x"),
    "softmax": (tutorial_utils.lessons.softmax.explorer, "filtered_choice", "Temperature", 2.0),
    "stepper": (tutorial_utils.lessons.decoding.explorer, "continue_prompt", "Prompt", "x"),
}


@pytest.mark.parametrize("name", BREAK)
def test_an_error_in_a_callback_is_shown_and_raised(loaded, name, monkeypatch):
    model, tokenizer = loaded
    explorer = {
        "tokens": lambda: explore_tokens(tokenizer),
        "softmax": lambda: explore_softmax({"a": torch.zeros(len(tokenizer))}, tokenizer),
        "stepper": lambda: step_decoding(model, tokenizer, PROMPT),
    }[name]()
    module, function, control, value = BREAK[name]

    def broken(*args, **kwargs):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(module, function, broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        find(explorer, control).value = value
    assert "This did not work:</b> out of memory" in shown(explorer)


def test_a_broken_view_is_shown_and_raised(activations, monkeypatch):
    def broken(*args):
        raise RuntimeError("out of memory")

    views = {**tutorial_utils.lessons.activations.explorer.VIEWS, "norms": (broken, 1)}
    explorer = explore_activations(*activations)
    find(explorer, "View").value = "largest coordinates"
    monkeypatch.setattr(tutorial_utils.lessons.activations.explorer, "VIEWS", views)
    with pytest.raises(RuntimeError):
        find(explorer, "View").value = "norms"
    assert "This did not work" in shown(explorer)


def test_a_token_that_failed_is_not_part_of_the_text(loaded, monkeypatch):
    explorer = step_decoding(*loaded, PROMPT)
    good = tutorial_utils.lessons.decoding.explorer.continue_prompt

    def broken(*args):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(tutorial_utils.lessons.decoding.explorer, "continue_prompt", broken)
    candidates(explorer)[0].click()
    assert "This did not work:</b> out of memory" in shown(explorer)
    monkeypatch.setattr(tutorial_utils.lessons.decoding.explorer, "continue_prompt", good)
    candidates(explorer)[0].click()
    assert "<b>1</b> new token." in shown(explorer)


def test_every_control_has_a_label(loaded, activations):
    model, tokenizer = loaded
    logits = {"a": next_token_logits(model, tokenizer, PROMPT)[0]}
    explorers = [
        explore_tokens(tokenizer),
        explore_softmax(logits, tokenizer),
        step_decoding(model, tokenizer, PROMPT),
        explore_activations(*activations),
    ]
    for control in (w for explorer in explorers for w in inside(explorer)):
        if hasattr(control, "disabled") and not isinstance(control, widgets.FloatProgress):
            assert control.description, control
