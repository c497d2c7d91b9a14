"""The prompt of an explorer: typed, refused in words or read, and its tokens to choose from."""

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
    """A line to type a prompt into; its value changes at Enter, and not with each letter."""
    layout = widgets.Layout(width=width)
    return widgets.Text(prompt, description=name, continuous_update=False, layout=layout)


def check_text(text: str) -> None:
    """`ValueError` for half of a surrogate pair, which no tokenizer can read."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"character {error.start + 1} of the text is half a character, "
            f"{visible(text[error.start])}: type it again"
        ) from None


def explain_if_unreadable(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    message: widgets.HTML,
) -> bool:
    """Whether the model can read the prompt. If not, `message` says why: that is no error."""
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
    """Say what is wrong with what was typed: the reader can correct it, so it is no error."""
    said = str(error)
    message.value = escape(f"{said[:1].upper()}{said[1:]}.")


class Refused(ValueError):
    """A prompt that the model could read and the explorer cannot show: another one can be typed."""


class LastTokens(NamedTuple):
    """A prompt as the model reads it, and the last tokens of it, which an explorer shows."""

    inputs: BatchEncoding  # (1, seq)
    positions: range  # of the last `LAST_TOKENS` tokens
    tokens: list[str]  # at these positions


def encode_last(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str
) -> LastTokens:
    """Encode a prompt, and name the last tokens of it. Errors as in `encode`."""
    inputs = encode(model, tokenizer, prompt)
    ids = inputs["input_ids"][0]
    positions = range(max(0, len(ids) - LAST_TOKENS), len(ids))
    return LastTokens(inputs, positions, token_strings(tokenizer, ids[positions.start :]))


def tell_left_out(count: int) -> str:
    """That `count` tokens come before those that are shown; nothing where there are none."""
    return f"The first {count} tokens are left out." if count else ""


class PromptReader(Generic[View]):
    """A prompt that can be typed over; `view` is what `read(model, tokenizer, prompt)` gave of it.

    `field` is the line to type into, `message` says what is wrong with it. After a prompt that
    cannot be read the drawings are hidden and the message stays until another one is typed; the
    callbacks that `redrawing` makes do nothing meanwhile.
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
    """A slider over tokens, at the last one; `set_tokens` gives it those of another prompt."""
    slider = widgets.SelectionSlider(
        options=[""], description="Token", continuous_update=SYNC_WHILE_DRAGGING
    )
    set_tokens(slider, tokens)
    return slider


def set_tokens(slider: widgets.SelectionSlider, tokens: Sequence[str]) -> None:
    """Offer these tokens, each with its number, counted from 1, and move to the last one.

    The value is the place, from 0. Long tokens end in "…": ipywidgets has 72 pixels for them, and
    would cut them in a letter.
    """
    names = enumerate((visible(token, 6) for token in tokens), start=1)
    slider.options = [(f"{count} {name}", count - 1) for count, name in names]
    slider.index = len(tokens) - 1
