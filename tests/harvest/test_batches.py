"""Batches of like length: nothing is lost, no pass is too large, and no other cut is cheaper."""

from __future__ import annotations

import itertools
import random

import pytest
import torch

from tutorial_utils.harvest.batches import PASS, batches_of

CPU = torch.device("cpu")


def cost(batches: list[list[int]], lengths: list[int]) -> int:
    return sum(len(b) * max(lengths[i] for i in b) + PASS["cpu"] for b in batches)


@pytest.mark.parametrize("tokens", [1, 100, 4096])
def test_each_row_once_and_no_batch_too_large(tokens):
    lengths = random.Random(0).choices(range(1, 200), k=300)
    batches = batches_of(lengths, tokens, CPU)
    assert sorted(i for batch in batches for i in batch) == list(range(300))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= tokens
    assert batches_of([], tokens, CPU) == []


def test_no_cut_of_the_sorted_rows_is_cheaper():
    lengths = random.Random(1).choices(range(1, 90), k=9)
    order = sorted(range(9), key=lengths.__getitem__)
    costs = []
    for count in range(9):
        for cuts in itertools.combinations(range(1, 9), count):
            edges = [0, *cuts, 9]
            batches = [order[a:b] for a, b in itertools.pairwise(edges)]
            if all(len(b) * lengths[b[-1]] <= 250 for b in batches):
                costs.append(cost(batches, lengths))
    assert cost(batches_of(lengths, 250, CPU), lengths) == min(costs)


def test_little_of_a_pass_is_padding():
    lengths = list(range(4, 100))  # as many prompts as in two batches of 4096 tokens
    batches = batches_of(lengths, 4096, CPU)
    padded = sum(len(b) * max(lengths[i] for i in b) for b in batches)
    assert padded < 1.1 * sum(lengths) and len(batches) < 15


def test_a_gpu_gets_fewer_passes():
    lengths = list(range(4, 100))
    assert len(batches_of(lengths, 4096, torch.device("cuda"))) < len(
        batches_of(lengths, 4096, CPU)
    )
