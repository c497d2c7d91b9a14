"""The bars that the lesson's stored results on SmolLM2 are held to."""

from __future__ import annotations

from statistics import mean

import torch

from tutorial_utils.lessons.real import read_result


def best_heads(scores: list, count: int) -> list[str]:
    """The heads with the highest scores of `(layers, heads)`, best first."""
    heads = len(scores[0])
    order = torch.tensor(scores).flatten().argsort(descending=True)[:count].tolist()
    return [f"L{i // heads + 1}H{i % heads}" for i in order]


def test_words_said_again_cost_much_less():
    real = read_result("heads")
    once, again = (loss for loss, _ in real["loss"])
    assert once > 9 and again < once / 3


def test_previous_token_and_induction_heads_are_those_that_were_found():
    real = read_result("heads")
    maps = real["maps"]
    assert best_heads(maps["previous"], 2) == ["L17H0", "L12H1"]
    assert best_heads(maps["induction"], 1) == ["L19H6"]
    assert {"L18H4", "L18H3"} <= {*best_heads(maps["induction"], 4)}
    sinks = (torch.tensor(maps["first"]) > 0.3).float().mean()
    assert 0.5 < sinks < 0.9  # more than half of all heads look at the first token


def test_the_circuit_costs_more_than_random_heads():
    real = read_result("heads")
    circuit, _, *others = (mean(row) for row in real["together"]["mean"])
    assert len(others) == 4 and circuit > 3 * max(others)


def test_the_best_previous_token_head_is_needed_in_all_three_ways():
    real = read_result("heads")
    costs = {way: mean(rows[real["ten"].index("L17H0")]) for way, rows in real["by way"].items()}
    assert min(costs.values()) > 0.5


def test_where_attention_writes_is_not_where_it_causes():
    real = read_result("heads")
    direct, total = (
        {layer: mean(row) for layer, row in zip(real["layers"], real[what], strict=True)}
        for what in ("direct", "total")
    )
    assert total[19] > 0.3 > 2 * direct[19]


def test_one_path_carries_what_the_induction_head_brings():
    real = read_result("heads")
    through, _ = real["paths"]["L17H0 to L19H6"]
    alone = mean(real["back"]["at the last token"][real["tried"].index("L19H6")])
    assert through > 0.7 * alone > 0.1
    assert all(
        abs(share) < 0.05 for path, (share, _) in real["paths"].items() if "L17H0" not in path
    )
