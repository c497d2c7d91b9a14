"""The feature explorer shows what the functions say."""

from __future__ import annotations

import pytest
import torch

from explorer_parts import find, inside, parse, run_code, shown, words
from tiny_models import make_gpt2, make_llama
from tutorial_utils import (
    encode,
    encode_features,
    harvest_activations,
    load_model,
    read_activations,
    read_harvest,
    train_features,
    unembed,
)
from tutorial_utils.draw.html import visible
from tutorial_utils.lessons.features import explorer
from tutorial_utils.lessons.features.explorer import (
    Codes,
    explore_features,
    feature_html,
    features_of,
    promoted,
    read_codes,
    strongest,
)

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = [f"Anna has the red ball, and Ben has {i} green <b>lamps</b> & more." for i in range(12)]
PROMPT = "Ben has the ball."


@pytest.fixture(scope="module", params=[make_llama, make_gpt2])
def trained(request, tmp_path_factory):
    """A model, its tokenizer, features, codes and a dense version of these (rows, features)."""
    home = tmp_path_factory.mktemp("features")
    model, tokenizer = load_model(request.param(home / "model"))
    (home / "texts").write_text("\n".join(TEXTS))
    harvest_activations(model, tokenizer, home / "texts", home / "out", layers=2, positions="all")
    harvest = read_harvest(home / "out")
    features = train_features(model, harvest[2], 2, n_features=24, top_k=3, steps=60)
    codes = read_codes(features, harvest)
    return model, tokenizer, features, codes, encode_features(features, harvest[2][:])


def page(box) -> str:
    return shown(box.children[-3])


def test_codes_are_those_of_the_harvest_block_by_block(trained, monkeypatch):
    _, _, _, codes, dense = trained
    again = torch.zeros_like(dense).scatter(1, codes.features, codes.values)
    assert torch.equal(again, dense) and len(codes.prompt) == len(codes.tokens) == len(dense)


def test_the_strongest_rows_come_first(trained):
    codes, dense = trained[3:]
    for feature in range(24):
        rows, values = strongest(codes, feature)
        assert values.tolist() == sorted(dense[:, feature][dense[:, feature] > 0], reverse=True)
        assert torch.equal(dense[rows, feature], values)


def test_a_page_has_texts_the_framed_token_a_histogram_and_what_is_raised(trained):
    model, tokenizer, features, codes, dense = trained
    feature = int((dense > 0).sum(dim=0).argmax())
    made = feature_html(model, tokenizer, features, codes, feature)
    texts, histogram, raised = parse(made).findall("table")
    fires = int((dense[:, feature] > 0).sum())
    assert f"Feature {feature} fires on {fires / len(dense):.2%}" in words(texts)[0]
    (frame,) = {
        span.text for span in texts.findall("tbody/tr[1]//span") if "outline" in span.get("style")
    }
    row = int(dense[:, feature].argmax())
    token = visible(tokenizer.decode([codes.tokens[row]])).replace("␣", " ")
    assert frame == token
    counts = [words(line)[-1] for line in histogram.findall("tbody/tr")]
    assert sum(int(count.replace(",", "")) for count in counts) == fires
    names = [words(line)[0] for line in raised.findall("tbody/tr")]
    assert names == [visible(token) for token, _ in promoted(model, tokenizer, features, feature)]


def test_what_is_raised_is_the_direction_through_the_last_steps(trained):
    model, tokenizer, features, _, _ = trained
    (token, score), *_ = promoted(model, tokenizer, features, 5)
    both = torch.stack([features.decoder[5], torch.zeros_like(features.decoder[5])])
    one, nothing = unembed(model, both[None])[0]
    best = (one - nothing).argmax()
    assert score == pytest.approx((one - nothing)[best].item(), rel=1e-4)
    assert token == tokenizer.decode([best])


def test_a_dead_feature_says_so(trained):
    model, tokenizer, features, codes, _ = trained
    none = codes._replace(values=torch.zeros_like(codes.values))
    assert "It is dead" in feature_html(model, tokenizer, features, none, 3)
    assert features_of(none, torch.ones(len(codes.tokens), dtype=torch.bool), 24) == []


def test_features_are_found_by_where_they_fire():
    fires = torch.tensor([[0, 1], [0, 1], [0, 2], [3, 2]])
    codes = Codes(torch.ones(4, 2), fires, torch.zeros(4), torch.arange(4))
    assert features_of(codes, torch.tensor([True, True, False, False]), 5)[:2] == [1, 0]
    assert features_of(codes, torch.tensor([False, False, False, True]), 5)[0] == 3
    alike = codes._replace(features=torch.tensor([[0, 1], [0, 1], [0, 2], [3, 1]]))
    for values, best in (
        ([[9, 0.1], [9, 0.1], [9, 1], [1, 5]], 0),
        ([[1, 5], [1, 5], [9, 1], [1, 5]], 1),
    ):
        strengths = alike._replace(values=torch.tensor(values, dtype=torch.float32))
        assert features_of(strengths, torch.tensor([True, True, False, False]), 5)[0] == best


def test_number_word_and_token_lead_to_the_same_page(trained):
    model, tokenizer, features, codes, _ = trained
    box = explore_features(model, tokenizer, features, codes, PROMPT)
    number, search, token, found = (find(box, n) for n in ("Feature", "Search", "Token", "Found"))
    hidden = read_activations(model, **encode(model, tokenizer, PROMPT), layers=2)[2][0]
    at = encode_features(features, hidden)
    assert token.index == len(at) - 1 and number.value == found.value == int(at[-1].argmax())
    token.index = 1
    assert number.value == int(at[1].argmax()) and f"Feature {number.value} " in page(box)
    search.value = "a"
    assert not [w for w in inside(box) if "did not work" in str(getattr(w, "value", ""))]
    hit = torch.tensor([search.value in tokenizer.decode([i]).lower() for i in codes.tokens])
    assert [value for _, value in found.options] == features_of(codes, hit, 24)
    assert number.value == found.value and f"Feature {number.value} " in page(box)
    found.index = len(found.options) - 1
    assert number.value == found.options[-1][1]
    number.value = 7
    assert page(box) == feature_html(model, tokenizer, features, codes, 7)


def test_a_word_that_is_nowhere_is_told_and_no_error(trained):
    box = explore_features(*trained[:4], PROMPT)
    search = find(box, "Search")
    search.value = "zebra"
    assert "No token of the texts contains that" in shown(box) and not page(box)
    search.value = "a"
    assert page(box) and "No token" not in shown(box)
    search.value = ""
    assert "Type a word" in shown(box)
    find(box, "Feature").value = 3
    assert page(box)


def test_a_prompt_typed_over(trained):
    box = explore_features(*trained[:4], PROMPT)
    field, token = find(box, "Prompt"), find(box, "Token")
    field.value = "Anna has"
    seq = encode(*trained[:2], "Anna has")["input_ids"].shape[1]
    assert len(token.options) == seq and page(box)
    field.value = ""
    assert not page(box) and "Type a prompt" in shown(box)
    field.value = PROMPT
    assert page(box)


def test_texts_cannot_break_the_page(trained):
    model, tokenizer, features, codes, _ = trained
    for feature in range(24):
        tags = {
            e.tag for e in parse(feature_html(model, tokenizer, features, codes, feature)).iter()
        }
        assert tags <= set("div p b table caption colgroup col thead tbody tr th td span".split())
    assert explorer.BEFORE > explorer.AFTER


def test_the_code_that_is_shown_gives_what_is_shown(trained):
    model, tokenizer, features, codes, _ = trained
    box = explore_features(*trained[:4], PROMPT)
    find(box, "Feature").value = feature = int(codes.features[0, 0])
    names = {"model": model, "tokenizer": tokenizer, "features": features, "codes": codes}
    variables, raised = run_code(box, **names)
    assert len(
        variables["rows"]
    ) and f"fires on {len(variables['rows']) / len(codes.tokens):.2%}" in page(box)
    assert raised == promoted(model, tokenizer, features, feature)
    for token, score in raised:
        assert visible(token) in " ".join(words(parse(page(box)))) and f"{score:+.3g}" in page(box)
