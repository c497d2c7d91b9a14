"""Norms, changes and similarities are what plain loops over the recorded numbers give."""

from __future__ import annotations

import math

import pytest
import torch

from tutorial_utils import (
    head_scores,
    largest_coordinates,
    layer_similarity,
    residual_changes,
    residual_norms,
)

ACTIVATIONS = {
    i: torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(i)) for i in (0, 2, 5)
}


def norm(vector: list[float]) -> float:
    return math.sqrt(math.fsum(v * v for v in vector))


def rows(layer: int) -> list[list[float]]:
    return ACTIVATIONS[layer][0].tolist()  # of the first prompt


def test_norms_and_changes_of_each_token():
    norms, changes = residual_norms(ACTIVATIONS), residual_changes(ACTIVATIONS, [0, 5])
    assert norms.shape == (3, 3) and changes.shape == (1, 3)
    for token in range(3):
        for place, layer in enumerate(ACTIVATIONS):
            assert norms[place, token].item() == pytest.approx(norm(rows(layer)[token]))
        a, b = rows(0)[token], rows(5)[token]
        change = norm([y - x for x, y in zip(a, b)]) / norm(a)
        assert changes[0, token].item() == pytest.approx(change)


def test_similarity_and_largest_coordinates_at_one_token():
    similarity = layer_similarity(ACTIVATIONS, position=1)
    for i, first in enumerate(ACTIVATIONS):
        for j, second in enumerate(ACTIVATIONS):
            a, b = rows(first)[1], rows(second)[1]
            cosine = math.fsum(x * y for x, y in zip(a, b)) / norm(a) / norm(b)
            assert similarity[i, j].item() == pytest.approx(cosine, abs=1e-6)
    places, values = largest_coordinates(ACTIVATIONS, [2], k=3)
    assert places.shape == values.shape == (1, 3)
    last = rows(2)[-1]
    assert places[0].tolist() == sorted(range(8), key=lambda i: -abs(last[i]))[:3]
    assert values[0].tolist() == pytest.approx([last[i] for i in places[0].tolist()])
    assert largest_coordinates(ACTIVATIONS, k=99)[0].shape == (3, 8)


def test_half_precision_is_measured_in_float32():
    small = {1: torch.full((1, 1, 64), 300.0, dtype=torch.float16)}  # its squares leave float16
    assert residual_norms(small).item() == pytest.approx(2400)
    assert residual_norms(small).dtype == torch.float32


@pytest.mark.parametrize("measure", [residual_norms, layer_similarity, largest_coordinates])
def test_what_is_not_there(measure):
    with pytest.raises(ValueError, match="no layers were picked"):
        measure(ACTIVATIONS, [])
    with pytest.raises(KeyError):
        measure(ACTIVATIONS, [1])


def test_what_is_not_finite_is_passed_on():
    broken = {0: ACTIVATIONS[0].clone(), 1: ACTIVATIONS[0].clone()}
    broken[1][0, 1, 4] = math.nan
    broken[0][0, 2, 4] = math.inf
    assert residual_norms(broken)[1, 1].isnan() and residual_norms(broken)[0, 2].isinf()
    assert residual_changes(broken)[0, 1:].isnan().all()
    assert layer_similarity(broken, position=1)[0, 1].isnan()
    assert layer_similarity(broken, position=2)[0].isnan().all()
    assert largest_coordinates(broken, position=1)[1][1].isnan().any()


def patterns(batch: int = 2, heads: int = 3, seq: int = 11) -> dict[int, torch.Tensor]:
    scores = torch.randn(batch, heads, seq, seq, generator=torch.Generator().manual_seed(0))
    hidden = torch.ones(seq, seq, dtype=torch.bool).triu(1)
    return {2: scores.masked_fill(hidden, -math.inf).softmax(dim=-1)}


@pytest.mark.parametrize(("start", "period"), [(0, 4), (1, 5), (1, 2), (2, 3)])
def test_head_scores_are_what_loops_over_queries_and_keys_give(start, period):
    """Text of `period` random tokens, again and again, behind `start` others."""
    text = [*range(100, 100 + start)] + [i % period for i in range(11 - start)]
    wanted = {
        "previous": lambda q, k: k == q - 1,
        "first": lambda q, k: k == start,
        "induction": lambda q, k: k > start and text[k - 1] == text[q],
    }
    for kind, is_wanted in wanted.items():
        found = head_scores(patterns(), kind, period=period, start=start)
        assert list(found) == [2] and found[2].shape == (2, 3)
        for row, heads in enumerate(patterns()[2]):
            for head, weights in enumerate(heads.tolist()):
                given = []
                for q in range(start + 1, 11):
                    keys = [k for k in range(start, q) if is_wanted(q, k)]
                    if keys:
                        given.append(math.fsum(weights[q][k] for k in keys))
                assert found[2][row, head].item() == pytest.approx(math.fsum(given) / len(given))


def test_head_scores_of_heads_that_do_only_that():
    back = torch.eye(8).roll(-1, dims=1)[None, None]  # [q, q - 1], and the first looks at the last
    assert head_scores({1: back}, "previous")[1].item() == 1
    assert head_scores({1: back}, "first")[1].item() == pytest.approx(1 / 7)
    repeated = torch.eye(8).roll(3, dims=0)[None, None]  # [q, q - 3]: the token after the last one
    assert head_scores({1: repeated}, "induction", period=4)[1].item() == 1
    assert head_scores({1: repeated}, "previous")[1].item() == 0


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("next", {}, 'kind is "previous", "first" or "induction", not \'next\''),
        ("induction", {}, "needs a period of 2 tokens or more, not None"),
        (
            "induction",
            {"period": 11},
            'no query has a token of kind "induction".* tokens is 11, start is 0 and period is 11',
        ),
        ("previous", {"start": 10}, 'no query has a token of kind "previous"'),
    ],
)
def test_head_scores_of_nothing_are_refused(kind, options, message):
    with pytest.raises(ValueError, match=message):
        head_scores(patterns(), kind, **options)
