"""The prompt of an explorer: a field to type it, messages about it, and a choice of its tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

import ipywidgets as widgets
from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase

from tutorial_utils.decoding import encode, token_strings
from tutorial_utils.draw.html import visible
from tutorial_utils.lessons.explorer import SYNC_WHILE_DRAGGING, errors_shown, escape, message_line

LAST_TOKENS = 40  # of a long prompt: more do not fit in an explorer
View = TypeVar("View")


def prompt_field(prompt: str, name: str = "Prompt", width: str = "95%") -> widgets.Text:
    """A line to type a prompt into. Its value changes when Enter is pressed, not at each letter."""
    layout = widgets.Layout(width=width)
    return widgets.Text(prompt, description=name, continuous_update=False, layout=layout)


def check_text(text: str) -> None:
    """`ValueError` for half of a surrogate pair, which no tokenizer can read."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"character {error.start + 1} of the text, {visible(text[error.start])}, is only half "
            "of a character: type it again"
        ) from None


def explain_if_unreadable(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    message: widgets.HTML,
) -> bool:
    """Whether the model can read the prompt. If not, `message` says why, and nothing is raised."""
    if not prompt:
        message.value = "Type a prompt and press Enter."
        return False
    try:
        check_text(prompt)
        encode(model, tokenizer, prompt)
    except ValueError as error:
        tell_mistake(message, error)
        return False
    return True


def tell_mistake(message: widgets.HTML, error: ValueError) -> None:
    """Say what is wrong with the typed text. The reader can correct it, so nothing is raised."""
    said = str(error)
    message.value = escape(f"{said[:1].upper()}{said[1:]}.")


class Refused(ValueError):
    """The model can read this prompt, but the explorer cannot show it. Another can be typed."""


class LastTokens(NamedTuple):
    """A prompt as the model reads it, and its last tokens, which an explorer shows."""

    inputs: BatchEncoding  # (1, seq)
    positions: range  # of the last `LAST_TOKENS` tokens
    tokens: list[str]  # at these positions


def encode_last(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str
) -> LastTokens:
    """Encode a prompt, and give its last tokens as strings. The errors are those of `encode`."""
    inputs = encode(model, tokenizer, prompt)
    ids = inputs["input_ids"][0]
    positions = range(max(0, len(ids) - LAST_TOKENS), len(ids))
    return LastTokens(inputs, positions, token_strings(tokenizer, ids[positions.start :]))


def tell_left_out(count: int) -> str:
    """A sentence that says how many tokens at the start are not shown; empty if all are shown."""
    if count == 1:
        return "The first token is left out."
    return f"The first {count} tokens are left out." if count else ""


class PromptReader(Generic[View]):
    """A prompt that can be changed; `view` is what `read(model, tokenizer, prompt)` gave for it.

    `field` is the line to type into, `message` says what is wrong with the prompt. If a prompt
    cannot be read, the drawings are hidden and the message stays until another one is typed; until
    then the callbacks that `redrawing` makes do nothing.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        prompt: str,
        read: Callable[[PreTrainedModel, PreTrainedTokenizerBase, str], View],
    ) -> None:
        self.view = read(model, tokenizer, prompt)
        self.field, self.message = prompt_field(prompt), message_line()
        self._inputs, self._read, self._refused = (model, tokenizer), read, False
        self._drawings: Sequence[widgets.DOMWidget] = ()

    def start(self, draw: Callable[[], None], drawings: Sequence[widgets.DOMWidget]) -> None:
        """Call `draw` now and for each new prompt; hide `drawings` while a message stands there."""
        self._drawings = drawings

        def read_again(_: object) -> None:
            with errors_shown(self.message, "The model reads the prompt …", drawings):
                self._refused = True
                if not explain_if_unreadable(*self._inputs, self.field.value, self.message):
                    return
                try:
                    self.view = self._read(*self._inputs, self.field.value)
                except Refused as error:
                    tell_mistake(self.message, error)
                    return
                self._refused = False
                draw()

        self.field.observe(read_again, "value")
        self.redrawing(draw)()

    def redrawing(self, draw: Callable[[], None]) -> Callable[..., None]:
        """`draw` as the callback of a control."""

        def redraw(_: object = None) -> None:
            if not self._refused:
                with errors_shown(self.message, drawings=self._drawings):
                    draw()

        return redraw


def token_slider(tokens: Sequence[str]) -> widgets.SelectionSlider:
    """A slider over tokens, set to the last one; `set_tokens` changes it to another prompt's."""
    slider = widgets.SelectionSlider(
        options=[""], description="Token", continuous_update=SYNC_WHILE_DRAGGING
    )
    set_tokens(slider, tokens)
    return slider


def set_tokens(slider: widgets.SelectionSlider, tokens: Sequence[str]) -> None:
    """Offer these tokens, each with its number, counted from 1, and move to the last one.

    The value is the token's position, counted from 0. Long tokens end in "…": ipywidgets has 72
    pixels for them, and would cut them in the middle of a letter.
    """
    names = enumerate((visible(token, 6) for token in tokens), start=1)
    slider.options = [(f"{count} {name}", count - 1) for count, name in names]
    slider.index = len(tokens) - 1
