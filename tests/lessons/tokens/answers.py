# fmt: off
# ruff: noqa: E402, E731, F811, F821 - as a learner types them

# %% check_next_pair(next_pair, words)
from collections import Counter
from itertools import pairwise

words = [["l", "ow"], [" l", "ow", "er"], [" n", "ow", "er"], [" l", "ow"]]
count_pairs = lambda words: Counter(pair for word in words for pair in pairwise(word))
next_pair = ("ow", "er")  #: Right
next_pair = (" l", "ow")  #: Right
next_pair = [" l", "ow"]  #: Right
next_pair = count_pairs(words).most_common(1)  #: list of pairs and counts
next_pair = count_pairs(words).most_common(1)[0]  #: together with its count
next_pair = "ower"  #: expected a tuple of two strings, got str
next_pair = 2  #: expected a tuple of two strings, got int
next_pair = ("ow", "er", "s")  #: expected a tuple of two strings
next_pair = (["ow"], ["er"])  #: expected a tuple of two strings
next_pair = count_pairs(words)  #: expected a tuple of two strings
next_pair = ("l", "o")  #: not a pair of neighbours
next_pair = ("er", "ow")  #: not a pair of neighbours
next_pair = ("l", "ow")  #: has the count 1, and another
next_pair = (" n", "ow")  #: has the count 1, and another

# %% check_answer_id(answer_id, tokenizer)
import tiny_models

tokenizer = tiny_models.llama_tokenizer()
to_ids = lambda text: tokenizer(text, return_tensors="pt")["input_ids"]
answer_id = lambda prompt, a: tokenizer(" " + a, add_special_tokens=False)["input_ids"][0]  #: Right
tokenizer = tiny_models.gpt2_tokenizer()  #: Right
tokenizer = tiny_models.gpt2_tokenizer()  #: Right
answer_id = lambda prompt, answer: torch.tensor(tokenizer(" " + answer)["input_ids"][0])
#: with no space before it
answer_id = lambda prompt, a: tokenizer(a, add_special_tokens=False)["input_ids"][0]
#: expected an int, one whole number, got list
answer_id = lambda prompt, answer: tokenizer(prompt + " " + answer)["input_ids"]
#: that is a special token
answer_id = lambda prompt, answer: tokenizer(" " + answer)["input_ids"][0]
#: the last token of the prompt
answer_id = lambda prompt, answer: tokenizer(prompt)["input_ids"][-1]
#: the last token of the answer
answer_id = lambda prompt, answer: tokenizer(prompt + " " + answer)["input_ids"][-1]
#: encode the prompt alone
answer_id = lambda p, a: tokenizer(p + " " + a)["input_ids"][
    len(tokenizer(p + " " + a)["input_ids"])
]
answer_id = lambda p, a: {"Paris": right(p, a)}.get(a)  #: a word may be several tokens
answer_id = lambda p, a: tokenizer.convert_tokens_to_ids("Ġ" + a)  #: Hint: a word may be several
tokenizer = tiny_models.gpt2_tokenizer()  #: for a token that it does not have
answer_id = lambda p, a: tokenizer.convert_tokens_to_ids("Ġ" + a)
answer_id = lambda prompt, answer: -1  #: the ids of the whole text are
answer_id = lambda prompt, answer: str(right(prompt, answer))  #: expected an int
answer_id = lambda prompt, answer: float(right(prompt, answer))  #: expected an int

# %% check_decode_symbols(decode_symbols)
from transformers.convert_slow_tokenizer import bytes_to_unicode

symbol_of = bytes_to_unicode()
byte_of = {symbol: byte for byte, symbol in symbol_of.items()}
to_bytes = lambda token: bytes(byte_of[symbol] for symbol in token)
#: Right
decode_symbols = lambda tokens: to_bytes("".join(tokens)).decode("utf-8", errors="replace")
decode_symbols = lambda tokens: "".join(tokens).replace("Ġ", " ")  #: invert symbol_of
def decode_symbols(tokens):  #: for bytes 0, 173 and 255
    known = {symbol_of[byte]: byte for byte in range(255)}
    return bytes(known[s] for s in "".join(tokens)).decode(errors="replace")
def decode_symbols(tokens):  #: can be spread over two
    byte_of = {symbol: byte for byte, symbol in symbol_of.items()}
    parts = [bytes(byte_of[s] for s in token) for token in tokens]
    return "".join(part.decode(errors="replace") for part in parts)
decode_symbols = lambda tokens: "".join(tokens)  #: invert symbol_of
#: can be spread over two
decode_symbols = lambda tokens: "".join(to_bytes(token).decode() for token in tokens)
#: the bytes are UTF-8
decode_symbols = lambda tokens: "".join(chr(byte) for byte in to_bytes("".join(tokens)))
decode_symbols = lambda tokens: to_bytes("".join(tokens)).decode()  #: errors="replace"
decode_symbols = lambda tokens: to_bytes("".join(tokens))  #: bytes.decode() gives text
#: errors="replace"
decode_symbols = lambda tokens: to_bytes("".join(tokens)).decode(errors="ignore")
#: invert symbol_of
decode_symbols = lambda tokens: bytes(ord(s) % 256 for s in "".join(tokens)).decode()
#: expected text, got list
decode_symbols = lambda tokens: [to_bytes(token).decode(errors="replace") for token in tokens]
decode_symbols = lambda tokens: " ".join(tokens)  #: invert symbol_of
decode_symbols = lambda tokens: right(tokens).strip()  #: keep all spaces
decode_symbols = lambda tokens: right(tokens) or " "  #: empty string
