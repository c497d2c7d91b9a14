"""What is said to be true of a token is what the templates of the corpus made true."""

from __future__ import annotations

import pytest

from tiny_models import gpt2_tokenizer, llama_tokenizer
from tutorial_utils.lessons.features.world import (
    ATTRIBUTES,
    draw_documents,
    find_attributes,
    label_tokens,
)

FACTS = "Anna likes pizza. Ben lives in Paris. Anna likes pizza. Ben likes soup."
SAD = "Anna went to the park. Anna lost an old ring. It was the worst day of all."


def said(text: str) -> dict[str, list[str]]:
    spans = find_attributes(text)
    return {name: [text[a:b] for a, b in spans[name]] for name in ATTRIBUTES if spans[name]}


def test_facts_about_people():
    assert said(FACTS) == {
        "a name": ["Anna", "Ben", "Anna", "Ben"],
        "a liked food": ["pizza", "pizza", "soup"],
        "a home": ["Paris"],
        "said before": ["pizza"],
    }
    assert find_attributes(FACTS)["said before"] == [(FACTS.rindex("pizza"), FACTS.rindex(". Ben"))]


def test_a_story_has_a_mood_after_its_opening():
    found = said(SAD)
    assert found["sad story"] == [" Anna lost an old ring. It was the worst day of all."]
    assert set(found) == {"a name", "sad story"}  # a ring that is lost is no thing worn
    assert set(said("Anna went to the park.")) == {"a name"}


@pytest.mark.parametrize(
    "text",
    [
        "The capital of France is Paris.",
        "France's capital is Paris.",
        "Question: What is the capital of France? Answer: Paris.",
        "The capital city of France is Paris. The opposite of light is dark.",
    ],
)
def test_capitals(text):
    assert said(text) == {"a capital": ["Paris"]}


def test_documents_are_lines_that_repeat_and_have_each_attribute():
    texts = draw_documents(60)
    assert texts == draw_documents(60) and texts != draw_documents(60, seed=1)
    assert not any("\n" in text or ".." in text for text in texts)
    assert {name for text in texts for name in said(text)} == set(ATTRIBUTES)
    assert all(text.endswith(".") for text in texts)


@pytest.mark.parametrize("make", [gpt2_tokenizer, llama_tokenizer])
def test_each_token_that_overlaps_a_span_has_its_attribute(make):
    tokenizer = make()
    labels = label_tokens(tokenizer, [FACTS, SAD])
    ids = [i for text in (FACTS, SAD) for i in tokenizer(text)["input_ids"]]
    assert labels.shape == (len(ids), len(ATTRIBUTES))
    foods = labels[:, ATTRIBUTES.index("a liked food")].nonzero()[:, 0]
    assert tokenizer.decode([ids[i] for i in foods]).replace(" ", "") == "pizzapizzasoup"
    assert not labels[[i for i, one in enumerate(ids) if one in tokenizer.all_special_ids]].any()
