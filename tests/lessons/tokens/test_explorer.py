"""The token explorer: tokens with their ids and bytes, for each text that is typed."""

from __future__ import annotations

import pytest

from explorer_parts import find, parse, shown, words
from tiny_models import gpt2_tokenizer, llama_tokenizer
from tutorial_utils.lessons.tokens.explorer import (
    MAX_BOXES,
    TokenRow,
    explore_tokens,
    token_rows,
    tokens_html,
)


def boxes(html: str) -> list:
    return parse(html).findall(".//div[@data-token]")


@pytest.mark.parametrize(
    "text", ["A café 🙂", " two  spaces", "\n\t", "東京 x", "e\u0301", "", "\0\u202e\ufffe"]
)
@pytest.mark.parametrize("make", [llama_tokenizer, gpt2_tokenizer])
def test_bytes_of_all_tokens_are_those_of_the_text(make, text):
    rows = token_rows(make(), text)
    assert b"".join(row.raw for row in rows) == text.encode()
    assert [row.token_id for row in rows] == make()(text)["input_ids"]


def test_special_tokens_have_no_bytes_wherever_they_stand():
    rows = token_rows(llama_tokenizer(), "a<|end_of_text|>b")
    assert [row.special for row in rows] == [True, False, True, False]
    assert [row.raw for row in rows] == [b"", b"a", b"", b"b"]
    assert rows[2].text == "<|end_of_text|>"


def test_sentencepiece_bytes_are_single_bytes():
    class Tokenizer:
        all_special_ids = ()

        def __call__(self, text, **options):
            return {"input_ids": [0]}

        def convert_ids_to_tokens(self, token_id):
            return "<0xE2>"

        def decode(self, ids, **options):
            return "\N{REPLACEMENT CHARACTER}"

    assert token_rows(Tokenizer(), "x")[0].raw == b"\xe2"


def test_every_token_shows_text_id_and_bytes():
    rows = [
        TokenRow("<|start|>", 0, b"", True),
        TokenRow(" caf", 300, b" caf", False),
        TokenRow("<0xC3>", 128, b"\xc3", False),
        TokenRow("<b>&\n", 9, b"<", False),
    ]
    found = boxes(tokens_html(rows))
    assert [words(box) for box in found] == [
        ["<|start|>", "0", "special"],
        ["␣caf", "300", "20 63 61 66"],
        ["<0xC3>", "128", "C3"],
        ["<b>&\\n", "9", "3C"],
    ]
    assert ["dashed" in box.get("style") for box in found] == [True, False, False, False]


def test_a_long_text_is_cut_and_says_so_and_no_text_has_no_boxes():
    html = tokens_html([TokenRow("a", 1, b"a", False)] * 1500)
    assert len(boxes(html)) == MAX_BOXES
    assert f"… and {1500 - MAX_BOXES:,} more tokens<" in html
    assert "… and 1 more token<" in tokens_html([TokenRow("a", 1, b"a", False)] * (MAX_BOXES + 1))
    assert boxes(tokens_html([])) == []


def test_tokens_follow_what_is_typed():
    tokenizer = llama_tokenizer()
    explorer = explore_tokens(tokenizer, "Anna")
    for text in ("Anna 🙂", "", "<b>"):
        find(explorer, "Text").value = text
        assert tokens_html(token_rows(tokenizer, text)) in shown(explorer)
        assert f"<b>{len(text.encode())}</b> byte" in shown(explorer)
        count = len(tokenizer(text)["input_ids"])
        assert f"<b>{count}</b> token{'s' if count > 1 else ' '}" in shown(explorer)


def test_half_a_character_is_told_and_the_last_tokens_are_not_left_standing():
    explorer = explore_tokens(llama_tokenizer(), "Anna")
    find(explorer, "Text").value = "Ann\ud83d"
    assert shown(explorer).strip() == (
        "Character 4 of the text, \\ud83d, is only half of a character: type it again."
    )
    find(explorer, "Text").value = "Ann"
    assert "data-token" in shown(explorer) and "half" not in shown(explorer)
