"""Which prompts go through the model together."""

from __future__ import annotations

import torch

# The fixed cost of a forward pass, in tokens, measured on a CPU with models of 2 and 135 million
# parameters. A GPU needs some hundred tokens before it is fully used.
PASS = {"cpu": 32}
OTHER_PASS = 256


def batches_of(lengths: list[int], tokens: int, device: torch.device) -> list[list[int]]:
    """Row numbers in batches of at most `tokens` tokens, padding included, at the lowest cost.

    A batch costs the number of its rows times the longest of them, plus a fixed cost for each pass.
    Rows are taken in the order of their lengths. The cheapest way to cut this order is found from
    its beginning on: each cut follows the best way to cut what is before it.
    """
    fixed = PASS.get(device.type, OTHER_PASS)
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    least, cuts = [0], []  # of the first 0, 1, 2, ... rows: cost, start of the last batch
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
