"""Checks of the exercises on tokenization."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise

from transformers import PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

from tutorial_utils.encoding import text_ids
from tutorial_utils.lessons.exercise import NotYet, as_whole_number, call, exercise


@exercise("no other pair is more frequent in the tiny text now.")
def check_next_pair(next_pair: tuple[str, str], words: list[list[str]]) -> None:
    """`next_pair` is a most frequent pair of neighbours in `words`, lists of symbols."""
    counts = Counter(pair for word in words for pair in pairwise(word))
    best = max(counts.values(), default=0)
    if isinstance(next_pair, list) and next_pair and isinstance(next_pair[0], tuple):
        raise NotYet("that is a list of pairs and counts.", "take the pair out with [0][0].")
    if isinstance(next_pair, tuple) and len(next_pair) == 2 and next_pair[1:] == (best,):
        raise NotYet("that is the pair together with its count.", "take its first item.")
    strings = isinstance(next_pair, (tuple, list)) and all(isinstance(s, str) for s in next_pair)
    if not strings or len(next_pair) != 2:
        found = f"expected a tuple of two strings, got {type(next_pair).__name__} {next_pair!r}."
        raise NotYet(found, "a key of count_pairs(words) is such a tuple.")
    pair = (next_pair[0], next_pair[1])
    if pair not in counts:
        found = f"{pair!r} is not a pair of neighbours in `words`."
        if "".join(pair) in {symbol for word in words for symbol in word}:
            hint = (
                "`words` was merged once more: run the cell of the merges again, then count only."
            )
            raise NotYet(found, hint)
        raise NotYet(found, "count in `words` as it is after the merges, not in the tiny text.")
    if counts[pair] < best:
        found = f"{pair!r} has the count {counts[pair]}, and another pair has the count {best}."
        raise NotYet(found, "Counter.most_common(1) gives the most frequent one.")


@exercise("tested with three prompts and their answers.")
def check_answer_id(answer_id: Callable, tokenizer: PreTrainedTokenizerBase) -> None:
    """`answer_id(prompt, answer)` is the id of the answer's first token, after a space."""
    hints = {
        "IndexError": "the answer includes the space: encode the prompt alone, without the space.",
        "None": "a word may be several tokens: encode it. Or is there a `return`?",
    }
    for prompt, answer in [
        ("The capital of France is", "Paris"),
        ("Trump works at McDonald's. Trump works at", "McDonald's"),
        ("The die shows", "three"),
    ]:
        before, whole = text_ids(tokenizer, [prompt, f"{prompt} {answer}"])
        start = len(before)
        got = call(answer_id, prompt, answer, case=repr(answer), hints=hints)
        got = as_whole_number(got, case=repr(answer), hint="take one item of the list of ids.")
        if got == whole[start]:
            continue
        hint = f"the ids of the whole text are {whole}: the answer's first one is among them."
        if got in tokenizer.all_special_ids:
            hint = (
                "that is a special token: one that the tokenizer adds in front of a text, or gives "
                "for a token that it does not have."
            )
        elif got == tokenizer(answer, add_special_tokens=False)["input_ids"][0]:
            hint = "that is the word with no space before it: the space is a part of the token."
        elif got == whole[start - 1]:
            hint = "that is the last token of the prompt: take the token after it."
        elif got == whole[-1]:
            hint = "that is the last token of the answer: take its first one."
        raise NotYet(f"for {answer!r}, expected the id {whole[start]}, got {got}.", hint)


@exercise(
    "tested with spaces, letters of several bytes, an emoji, and bytes that are not valid text."
)
def check_decode_symbols(decode_symbols: Callable) -> None:
    """`decode_symbols(tokens)` is the text of tokens written in GPT-2's byte symbols."""
    symbol_of = bytes_to_unicode()
    turn = "invert symbol_of for all 256 bytes: go from symbol to byte."
    join = "join the bytes of all tokens first: a character can be spread over two of them."
    for case, raw, hint in [
        ("a plain sentence", [b"The", b" die", b" shows"], turn),
        ("a space at each end", [b" a", b" "], "keep all spaces: they belong to the tokens."),
        ("a line break, a tab and byte 127", [b"a\n", b"\tb\x7f"], turn),
        ("a token with an é", [b"A", " caf\u00e9".encode()], "the bytes are UTF-8."),
        ("an é in two tokens", [b"A", b" caf", b"\xc3", b"\xa9"], join),
        ("an emoji in four tokens", [b"\xf0", b"\x9f", b"\x99", b"\x82", b"!"], join),
        ("half an é", [b"caf", b"\xc3"], 'give bytes.decode the option errors="replace".'),
        ("bytes 0, 173 and 255 in front of letters", [b"\x00", "í".encode(), b"\xff", b"ok"], turn),
        ("no tokens", [], "the text of no tokens is an empty string."),
    ]:
        tokens = ["".join(symbol_of[byte] for byte in token) for token in raw]
        want = b"".join(raw).decode("utf-8", errors="replace")
        got = call(decode_symbols, tokens, case=case, hints={"Decode": hint})
        if isinstance(got, bytes):
            raise NotYet(f"for {case}, expected text, got bytes.", "bytes.decode() gives text.")
        if not isinstance(got, str):
            raise NotYet(f"for {case}, expected text, got {type(got).__name__}.", "return a str.")
        if got != want:
            raise NotYet(f"for {case}, {tokens}, expected {want!r}, got {got!r}.", hint)
