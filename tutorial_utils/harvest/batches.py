"""Which prompts go through the model together."""

from __future__ import annotations

import torch

# What a forward pass costs besides its tokens, in tokens: measured on a CPU with models of 2 and
# 135 million parameters. A GPU is not filled by fewer than some hundreds.
PASS = {"cpu": 32}
OTHER_PASS = 256


def batches_of(lengths: list[int], tokens: int, device: torch.device) -> list[list[int]]:
    """Numbers of rows, in batches of at most `tokens`, padding counted: those that cost the least.

    A batch costs its rows times the longest of them, and what a pass costs besides. Rows are taken
    in the order of their lengths, and the cheapest way to cut that order is found from its
    beginning on: each cut follows the best way to cut what is before it.
    """
    fixed = PASS.get(device.type, OTHER_PASS)
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    least, cuts = [0], []  # of the first 0, 1, 2, ... rows: the cost, where their last batch begins
    for end, row in enumerate(order, start=1):
        longest = lengths[row]
        first = max(0, end - max(1, tokens // longest))
        costs = [least[cut] + (end - cut) * longest + fixed for cut in range(first, end)]
        least.append(min(costs))
        cuts.append(first + costs.index(least[-1]))
    batches, end = [], len(order)
    while end:
        batches.append(order[cuts[end - 1] : end])
        end = cuts[end - 1]
    return batches[::-1]
