"""The checks of lesson 01 say right to right answers, and give a hint for the usual wrong ones."""

import pytest
from transformers.convert_slow_tokenizer import bytes_to_unicode

from tiny_models import gpt2_tokenizer, llama_tokenizer
from tutorial_utils.lessons.checks import check_answer_id, check_decode_symbols, check_next_pair

WORDS = [["l", "ow"], [" l", "ow", "er"], [" n", "ow", "er"], [" l", "ow"]]
BYTE_OF = {symbol: byte for byte, symbol in bytes_to_unicode().items()}
TOKENIZERS = [llama_tokenizer(), gpt2_tokenizer()]


def whole_text(tokenizer):
    def answer_id(prompt, answer):
        return tokenizer(f"{prompt} {answer}")["input_ids"][len(tokenizer(prompt)["input_ids"])]

    return answer_id


def after_space(tokenizer):
    return lambda prompt, answer: tokenizer(" " + answer, add_special_tokens=False)["input_ids"][0]


def to_bytes(token):
    return bytes(BYTE_OF[symbol] for symbol in token)


def decode(tokens, errors="replace"):
    return to_bytes("".join(tokens)).decode("utf-8", errors=errors)


@pytest.mark.parametrize("pair", [("ow", "er"), (" l", "ow")])
def test_any_of_the_most_frequent_pairs_is_right(capsys, pair):
    check_next_pair(pair, WORDS)
    assert capsys.readouterr().out.startswith("Right: ")


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("solve", [whole_text, after_space])
def test_two_ways_to_the_answers_id_are_right(capsys, solve, tokenizer):
    check_answer_id(solve(tokenizer), tokenizer)
    assert capsys.readouterr().out.startswith("Right: ")


def test_decoding_by_hand_is_right(capsys):
    check_decode_symbols(decode)
    assert capsys.readouterr().out.startswith("Right: ")


@pytest.mark.parametrize(
    ("check", "answers"),
    [
        (check_next_pair, (..., WORDS)),
        (check_answer_id, (lambda prompt, answer: ..., TOKENIZERS[0])),
        (check_decode_symbols, (lambda tokens: ...,)),
    ],
)
def test_stubs(capsys, check, answers):
    check(*answers)
    assert capsys.readouterr().out.startswith("Not tried yet")


@pytest.mark.parametrize(
    ("check", "answers", "part"),
    [
        (check_next_pair, ([(("ow", "er"), 2)], WORDS), "list of pairs and counts"),
        (check_next_pair, ((("ow", "er"), 2), WORDS), "together with its count"),
        (check_next_pair, ("ower", WORDS), "expected a tuple of two strings, got str"),
        (check_next_pair, (("l", "o"), WORDS), "nowhere neighbours"),
        (check_next_pair, (("l", "ow"), WORDS), "comes 1 times, another pair 2 times"),
        (check_decode_symbols, (lambda tokens: "".join(tokens),), "turn symbol_of round"),
        (
            check_decode_symbols,
            (lambda tokens: "".join(to_bytes(token).decode(errors="replace") for token in tokens),),
            "a character can lie in two",
        ),
        (
            check_decode_symbols,
            (lambda tokens: "".join(to_bytes(token).decode() for token in tokens),),
            "a character can lie in two",
        ),
        (
            check_decode_symbols,
            (lambda tokens: "".join(chr(byte) for byte in to_bytes("".join(tokens))),),
            "the bytes are UTF-8",
        ),
        (check_decode_symbols, (lambda tokens: decode(tokens, "strict"),), 'errors="replace"'),
        (check_decode_symbols, (lambda tokens: None,), "is there a `return`"),
    ],
)
def test_wrong_answers_get_a_hint(capsys, check, answers, part):
    check(*answers)
    said = capsys.readouterr().out
    assert said.startswith("Not yet: ") and part in said


@pytest.mark.parametrize(
    ("answer_id", "part"),
    [
        (lambda t: lambda p, a: t(" " + a)["input_ids"][0], "that is a special token"),
        (
            lambda t: lambda p, a: t(a, add_special_tokens=False)["input_ids"][0],
            "with no space before it",
        ),
        (lambda t: lambda p, a: t(p)["input_ids"][-1], "the last token of the prompt"),
        (lambda t: lambda p, a: t(f"{p} {a}")["input_ids"][-1], "the last token of the answer"),
        (lambda t: lambda p, a: t(f"{p} {a}")["input_ids"], "expected one id"),
        (lambda t: lambda p, a: -1, "the ids of the whole text are"),
    ],
)
def test_wrong_ids_get_a_hint(capsys, answer_id, part):
    tokenizer = TOKENIZERS[0]
    check_answer_id(answer_id(tokenizer), tokenizer)
    said = capsys.readouterr().out
    assert said.startswith("Not yet: ") and part in said
