"""Texts about the shipped model's world, and what is true of each of their tokens."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from tutorial_utils.pocket_llama.corpus import (
    CAPITALS,
    NAMES,
    RECALL,
    facts_document,
    mood_of,
    recall_document,
    story_document,
)

KINDS = {
    "works": "a workplace",
    "lives": "a home",
    "likes": "a liked food",
    "has": "a possession",
    "wears": "a thing worn",
}
ATTRIBUTES = ["a name", *KINDS.values(), "said before", "a capital", "happy story", "sad story"]

NAME = re.compile(rf"\b({'|'.join(NAMES)})\b")
FACT = {
    kind: re.compile(sentence.format(name=r"\w+", object=f"({'|'.join(map(re.escape, objects))})"))
    for kind, (sentence, objects) in RECALL.items()
}
CAPITAL = re.compile(rf"\b[Cc]apital\b.*?\b(?:is|Answer:) ({'|'.join(CAPITALS.values())})\.")


def draw_documents(count: int, seed: int = 0) -> list[str]:
    """Documents of one line: facts about people, repeated; stories; capitals and other facts."""
    rng = random.Random(seed)
    kinds = [recall_document, story_document, recall_document, facts_document, story_document]
    return [_sentences(kinds[i % len(kinds)](rng)) for i in range(count)]


def _sentences(text: str, most: int = 8) -> str:
    """The first sentences of a text: more of them would say the same facts again and again."""
    return ". ".join(text.rstrip(".").split(". ")[:most]) + "."


def find_attributes(text: str) -> dict[str, list[tuple[int, int]]]:
    """{attribute: spans of characters it is true of}, as the templates of the corpus tell."""
    found: dict[str, list[tuple[int, int]]] = {name: [] for name in ATTRIBUTES}
    found["a name"] = [match.span() for match in NAME.finditer(text)]
    said = set()
    facts = [(m, kind) for kind, fact in FACT.items() for m in fact.finditer(text)]
    for match, kind in sorted(facts, key=lambda pair: pair[0].start()):
        found[KINDS[kind]].append(match.span(1))
        if match[0] in said:
            found["said before"].append(match.span(1))
        said.add(match[0])
    found["a capital"] = [match.span(1) for match in CAPITAL.finditer(text)]
    mood = mood_of(text)
    if mood and found["a name"] and not facts:  # a story: the other kinds have no person in them
        found[f"{mood} story"].append((text.index(". ") + 1, len(text)))  # after the opening
    return found


def label_tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> Tensor:
    """Which attributes are true of each token: (tokens of all texts in a row, attributes), bool."""
    rows = []
    for text in texts:
        spans = find_attributes(text)
        offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
        rows += [
            [any(a < end and start < b for a, b in spans[name]) for name in ATTRIBUTES]
            if start < end
            else [False] * len(ATTRIBUTES)
            for start, end in offsets
        ]
    return torch.tensor(rows)
