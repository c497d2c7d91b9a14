"""A prompt is read, or refused in words; no explorer shows another prompt's answer meanwhile."""

from __future__ import annotations

import pytest

from explorer_parts import find, inside, shown
from tiny_models import make_llama
from tutorial_utils import encode, load_model, mean_differences, token_strings
from tutorial_utils.lessons.contrast import explore_contrast
from tutorial_utils.lessons.decoding import step_decoding
from tutorial_utils.lessons.explorer import message_line
from tutorial_utils.lessons.layer import explore_attention
from tutorial_utils.lessons.lens import explore_lens
from tutorial_utils.lessons.patching import explore_steering
from tutorial_utils.lessons.prompt import (
    LAST_TOKENS,
    check_text,
    encode_last,
    explain_if_unreadable,
    set_tokens,
    tell_left_out,
    token_slider,
)

PROMPT = "Anna has the red ball."
REFUSED = {"": "Type ", "x " * 300: "The prompt is too long", "An\udc80": "Character 3 of the text"}


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return load_model(make_llama(tmp_path_factory.mktemp("llama"), context=64))


@pytest.fixture(params=["decoding", "layer", "lens", "contrast", "patching"])
def explorer(request, llama):
    if request.param == "patching":
        directions = mean_differences(*llama, ["Anna was glad."], ["Ben was sad."])
        return explore_steering(*llama, directions, PROMPT)
    explore = {
        "contrast": explore_contrast,
        "decoding": step_decoding,
        "layer": explore_attention,
        "lens": explore_lens,
    }
    return explore[request.param](*llama, PROMPT)


def field(explorer):
    names = [getattr(widget, "description", None) for widget in inside(explorer)]
    return find(explorer, "Beginning" if "Beginning" in names else "Prompt")


def answer(explorer) -> str:
    """What is shown of the prompt's answer: tables, or the candidates of the stepper."""
    return "".join(text for text in shown(explorer).split("\n") if "<t" in text or "." in text[:3])


@pytest.mark.parametrize("prompt", REFUSED)
def test_a_refused_prompt_is_told_and_the_last_answer_is_not_left_standing(explorer, prompt):
    assert answer(explorer)
    field(explorer).value = prompt
    assert REFUSED[prompt] in shown(explorer) and not answer(explorer)
    field(explorer).value = "Ben has"
    assert not any(said in shown(explorer) for said in REFUSED.values()) and answer(explorer)


@pytest.mark.parametrize(
    ("explore", "control", "value"), [(explore_lens, "Layer", 1), (explore_contrast, "alpha", 0.5)]
)
def test_why_a_prompt_was_refused_stays_whatever_is_moved(llama, explore, control, value):
    explorer = explore(*llama, PROMPT)
    field(explorer).value = ""
    find(explorer, control).value = value
    find(explorer, "All").click()
    assert "Type a prompt and press Enter." in shown(explorer) and not answer(explorer)


def test_a_prompt_that_failed_is_not_answered_with_the_one_before(llama, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("out of memory")

    explorer = explore_contrast(*llama, PROMPT)
    with monkeypatch.context() as patch:
        patch.setattr("tutorial_utils.lessons.contrast.explorer.logit_lens", broken)
        with pytest.raises(RuntimeError):
            field(explorer).value = "Ben"
    find(explorer, "alpha").value = 0.5
    assert "out of memory" in shown(explorer) and not answer(explorer)


@pytest.mark.parametrize("explore", [explore_lens, explore_contrast])
def test_the_model_runs_once_for_each_prompt_and_the_reader_sees_it_read(llama, explore):
    runs, seen = [], []
    handle = llama[0].model.register_forward_hook(lambda *_: runs.append(1))
    explorer = explore(*llama, PROMPT)
    (message,) = [widget for widget in explorer.children if widget.layout.min_height]
    message.observe(lambda change: seen.append(change["new"]), "value")
    field(explorer).value = "Anna has"
    assert runs == [1, 1] and "reads the prompt" in seen[0] and seen[-1] == ""
    find(explorer, "None").click()
    find(explorer, "2").value = True
    find(explorer, "Token").value = 0
    handle.remove()
    assert runs == [1, 1]


def test_what_can_be_read_needs_no_words(llama):
    message = message_line()
    assert explain_if_unreadable(*llama, "\0\u202e🙂\ufffe", message) and not message.value
    check_text("a\ud83d\ude42".encode("utf-16", "surrogatepass").decode("utf-16"))
    with pytest.raises(ValueError, match=r"character 2 of the text, \\ud83d, is only half"):
        check_text("a\ud83d\ude42")


def test_of_a_long_prompt_the_last_tokens_are_shown(llama):
    prompt = "a b " * 14
    ids = encode(*llama, prompt)["input_ids"][0]
    inputs, positions, tokens = encode_last(*llama, prompt)
    assert inputs["input_ids"][0].equal(ids) and len(ids) > LAST_TOKENS
    assert [*positions] == [*range(len(ids))][-LAST_TOKENS:]
    assert tokens == token_strings(llama[1], ids[-LAST_TOKENS:])
    assert tell_left_out(positions.start) == f"The first {positions.start} tokens are left out."
    assert tell_left_out(1) == "The first token is left out."
    assert tell_left_out(encode_last(*llama, "a b").positions.start) == ""


def test_tokens_to_pick_have_their_number_and_are_cut():
    slider = token_slider(["a", " long-winded"])
    assert [*slider.options] == [("1 a", 0), ("2 ␣long…", 1)] and slider.value == 1
    set_tokens(slider, ["b"])
    assert slider.value == 0
