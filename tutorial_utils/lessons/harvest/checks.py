"""Checks of the exercises on many prompts."""

from __future__ import annotations

import operator
import random
from collections.abc import Callable

import torch

from tutorial_utils.draw.described import counted
from tutorial_utils.lessons.exercise import NotYet, as_number, as_tensor, call, exercise


@exercise("it counts the bytes of one token and of a million, with 1, 2 and 4 bytes per number.")
def check_bytes_on_disk(bytes_on_disk: Callable) -> None:
    """`bytes_on_disk(tokens, layers, hidden, itemsize)` gives the bytes of all vectors."""
    for tokens, layers, hidden, itemsize in [(1, 1, 128, 4), (10**6, 33, 4096, 2), (7, 3, 5, 1)]:
        case = ", ".join(
            (counted(tokens, "token"), counted(layers, "layer"), f"{counted(hidden, 'number')} of")
        )
        case += f" {counted(itemsize, 'byte')} each"
        got = call(bytes_on_disk, tokens, layers, hidden, itemsize, case=case)
        got = as_number(got, case=case, hint="return one number.")
        want = tokens * layers * hidden * itemsize
        if got * itemsize == want and itemsize > 1:
            raise NotYet(
                f"for {case}, you gave {got:,.0f}.",
                "that counts the numbers: multiply by `itemsize` too.",
            )
        if got != want:
            hint = "multiply all four arguments: each token has `hidden` numbers at each layer."
            raise NotYet(f"for {case}, expected {want:,}, got {got:,.0f}.", hint)


@exercise("it works with padding on the left, on the right and nowhere, in batches of 1 to 3.")
def check_positions_of(positions_of: Callable) -> None:
    """`positions_of(mask)` gives each real token its place in the prompt, `(batch, seq)`."""
    masks = {
        "no padding": [[1, 1, 1], [1, 1, 1]],
        "padding on the right": [[1, 0, 0, 0], [1, 1, 1, 0]],
        "padding on the left": [[1, 1, 1, 1], [0, 0, 1, 1], [1, 1, 1, 1]],
        "one prompt, padding on the left": [[0, 1, 1]],
    }
    for case, rows in masks.items():
        mask = torch.tensor(rows)
        real, want = mask.bool(), torch.cat([torch.arange(sum(row)) for row in rows])
        got = as_tensor(call(positions_of, mask, case=case), case=case)
        if got.shape != mask.shape:
            found = f"for {case}, expected shape {tuple(mask.shape)}, got {tuple(got.shape)}."
            raise NotYet(found, "one position for each column of a row: `dim=1` keeps the shape.")
        if got.is_floating_point() or got.dtype == torch.bool:
            raise NotYet(f"for {case}, you gave {got.dtype}.", "positions are whole numbers.")
        if torch.equal(got[real], want + 1):
            raise NotYet(
                f"for {case}, all positions are too high by 1.",
                "the first real token is at position 0.",
            )
        if not torch.equal(got[real], want):
            found = f"for {case}, the real tokens got {got[real].tolist()}, not {want.tolist()}."
            raise NotYet(found, "`mask.cumsum(dim=1)` counts the real tokens up to each column.")
        if got.min() < 0:
            found = f"for {case}, the padding got position {int(got.min())}."
            raise NotYet(found, "a position must not be below 0: use `clamp`.")


@exercise("it works for one prompt, for prompts of equal length, and for 200 of 1 to 60 tokens.")
def check_batches_of(batches_of: Callable) -> None:
    """`batches_of(lengths, tokens)` gives batches of numbers of prompts, a list of lists."""
    rng = random.Random(0)
    many = [rng.randint(1, 60) for _ in range(200)]
    for case, lengths, tokens in [
        ("one prompt of 5 tokens", [5], 8),
        ("sixty prompts of 4 tokens, 80 tokens in a batch", [4] * 60, 80),
        ("200 prompts, 300 tokens in a batch", many, 300),
        ("prompts of 3 and 5 tokens, 8 tokens in a batch", [3, 5], 8),
    ]:
        got = call(batches_of, lengths, tokens, case=case)
        try:
            batches = [[operator.index(i) for i in batch] for batch in got]
        except TypeError:
            hint = "return a list of batches, each of them a list of prompt numbers."
            raise NotYet(f"for {case}, the answer is not a list of lists.", hint) from None
        numbers = sorted(i for batch in batches for i in batch)
        if numbers != list(range(len(lengths))):
            missing = len(set(range(len(lengths))) - set(numbers))
            found = f"for {case}, not every prompt is in exactly one batch ({missing} in no batch)."
            hint = "the last batch is still open when the loop ends: add it to the list."
            if len(set(numbers)) < len(numbers):
                found = f"for {case}, a prompt is in the batches more than once."
                hint = "begin each new batch with an empty list."
            raise NotYet(found, hint)
        if not all(batches):
            raise NotYet(f"for {case}, there is an empty batch.", "do not append an empty batch.")
        sizes = [len(batch) * max(lengths[i] for i in batch) for batch in batches]
        if max(sizes) > tokens:
            found = f"for {case}, a batch has {max(sizes)} tokens with its padding."
            raise NotYet(
                found, "count the new row too: the number of rows times the longest of them."
            )
        if sum(sizes) - sum(lengths) > sum(sizes) / 10:
            share = (sum(sizes) - sum(lengths)) / sum(sizes)
            found = f"for {case}, {share:.0%} of the tokens are padding."
            raise NotYet(found, "go through the prompts in the order of their lengths.")
        # Also right, with one batch more: from the longest prompt to the shortest.
        if len(batches) > _fewest(lengths, tokens) + len(lengths) // 100:
            found = f"for {case}, there are {len(batches)} batches, more than necessary."
            raise NotYet(found, "begin a new batch only when the next row does not fit.")


def _fewest(lengths: list[int], tokens: int) -> int:
    """The number of batches that are filled one after the other, the shortest prompts first."""
    batches, rows = 1, 0
    for length in sorted(lengths):
        batches, rows = (batches, rows + 1) if (rows + 1) * length <= tokens else (batches + 1, 1)
    return batches
