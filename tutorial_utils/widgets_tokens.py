"""The tokenizer explorer of lesson 01."""

from __future__ import annotations

import ipywidgets as widgets
from transformers import PreTrainedTokenizerBase

from .html_views import tokens_html
from .token_views import TokenRow, token_rows
from .widgets_shared import Explorer, errors_shown, message_line


def explore_tokens(tokenizer: PreTrainedTokenizerBase, text: str = "A café 🙂") -> Explorer:
    """Type text and see its tokens, their ids and bytes, and the counts, with every key."""
    typed = widgets.Textarea(
        value=text,
        description="Text",
        placeholder="Type something",
        rows=2,
        layout=widgets.Layout(width="100%", max_width="760px"),
    )
    counts, boxes, message = widgets.HTML(), widgets.HTML(), message_line()

    def redraw(_: object = None) -> None:
        with errors_shown(message):
            rows = token_rows(tokenizer, typed.value)
            counts.value = count_tokens(typed.value, rows)
            boxes.value = tokens_html(rows)

    typed.observe(redraw, "value")
    redraw()
    return Explorer(
        [typed, counts, boxes, message], "type text, and see its tokens, ids and bytes change"
    )


def count_tokens(text: str, rows: list[TokenRow]) -> str:
    """Words, characters, bytes and tokens of a text, in one line of HTML."""
    special = sum(row.special for row in rows)
    counts = {
        "words": len(text.split()),
        "characters": len(text),
        "bytes": len(text.encode(errors="surrogatepass")),
        "tokens": len(rows),
    }
    line = " · ".join(f"<b>{count:,}</b> {name}" for name, count in counts.items())
    return line + (f" ({special} of them special, with a dashed edge)" if special else "")
