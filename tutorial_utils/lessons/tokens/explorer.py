"""The token explorer: the tokens of a text, with their ids and bytes."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import NamedTuple

import ipywidgets as widgets
from transformers import PreTrainedTokenizerBase

from tutorial_utils.decoding import BYTE_OF_SYMBOL, token_strings
from tutorial_utils.draw.described import counted
from tutorial_utils.draw.html import MONO, PALE, visible
from tutorial_utils.lessons.explorer import Explorer, errors_shown, message_line
from tutorial_utils.lessons.prompt import check_text, tell_mistake

CODE = """from tutorial_utils import token_strings

ids = tokenizer({text!r})["input_ids"]
list(zip(token_strings(tokenizer, ids), ids))"""
MAX_BOXES = 400  # more would be slow to lay out, and nobody would read them


def tokens_html(rows: Sequence[TokenRow]) -> str:
    """A coloured box for each token: its text, its id, its bytes in hexadecimal."""
    boxes = []
    for place, row in enumerate(rows[:MAX_BOXES]):
        color = PALE[place % len(PALE)]
        edge = "2px dashed" if row.special else "1px solid"
        raw = "special" if row.special else row.raw.hex(" ").upper()
        boxes.append(
            f'<div data-token="{row.token_id}" style="border:{edge} {color};border-radius:3px;'
            f'text-align:center;overflow:hidden;max-width:100%">'
            f'<div style="background:{color};color:black;padding:0 4px">'
            f"{html.escape(visible(row.text, 40))}</div>"
            f'<div style="padding:0 4px">{row.token_id}</div>'
            f'<div style="padding:0 4px;font-size:10px">{raw}</div></div>'
        )
    left = len(rows) - MAX_BOXES
    more = f"<div>… and {counted(left, 'more token')}</div>" if left > 0 else ""
    lines = "display:flex;flex-wrap:wrap;gap:4px;line-height:1.5;align-items:flex-start"
    return f'<div style="{lines};{MONO}">{"".join(boxes)}{more}</div>'


class TokenRow(NamedTuple):
    """One token: its text, its id, and the bytes that it stands for (none if it is special)."""

    text: str
    token_id: int
    raw: bytes
    special: bool


def token_rows(tokenizer: PreTrainedTokenizerBase, text: str) -> list[TokenRow]:
    """The tokens that the tokenizer makes of `text`, with those that it adds by itself.

    In a byte-level vocabulary the `raw` of all rows, put together, are the UTF-8 bytes of `text`.
    Half of a surrogate pair is a `ValueError`.
    """
    check_text(text)
    ids = tokenizer(text, verbose=False)["input_ids"]
    special = set(tokenizer.all_special_ids)
    return [
        TokenRow(shown, i, b"" if i in special else _raw(tokenizer, i, shown), i in special)
        for i, shown in zip(ids, token_strings(tokenizer, ids), strict=True)
    ]


def _raw(tokenizer: PreTrainedTokenizerBase, token_id: int, shown: str) -> bytes:
    token = str(tokenizer.convert_ids_to_tokens(token_id))
    if re.fullmatch("<0x[0-9A-F]{2}>", token):  # SentencePiece's spelling of a single byte
        return bytes([int(token[3:5], 16)])
    if "\N{REPLACEMENT CHARACTER}" in tokenizer.decode([token_id]):
        return bytes(BYTE_OF_SYMBOL[char] for char in token if char in BYTE_OF_SYMBOL)
    return shown.encode()


def explore_tokens(tokenizer: PreTrainedTokenizerBase, text: str = "A café 🙂") -> Explorer:
    """Type text and see its tokens, their ids and bytes, and the counts, after each key."""
    typed = widgets.Textarea(
        value=text,
        description="Text",
        placeholder="Type something",
        rows=2,
        layout=widgets.Layout(width="100%", max_width="760px"),
    )
    counts, boxes, message = widgets.HTML(), widgets.HTML(), message_line()

    def redraw(_: object = None) -> None:
        with errors_shown(message, drawings=[counts, boxes]):
            try:
                rows = token_rows(tokenizer, typed.value)
            except ValueError as error:
                tell_mistake(message, error)
                return
            counts.value = count_tokens(typed.value, rows)
            boxes.value = tokens_html(rows)

    typed.observe(redraw, "value")
    redraw()
    does = "type text, and see its tokens, ids and bytes change"
    return Explorer([typed, counts, boxes, message], does, lambda: CODE.format(text=typed.value))


def count_tokens(text: str, rows: list[TokenRow]) -> str:
    """Words, characters, bytes and tokens of a text, in one line of HTML."""
    special = sum(row.special for row in rows)
    counts = {
        "word": len(text.split()),
        "character": len(text),
        "byte": len(text.encode()),
        "token": len(rows),
    }
    line = " · ".join(
        f"<b>{count:,}</b> {name}{'' if count == 1 else 's'}" for name, count in counts.items()
    )
    return line + (f" ({special} of them special, with a dashed edge)" if special else "")
