"""Checks of the exercises on many prompts."""

from __future__ import annotations

import operator
import random
from collections.abc import Callable

import torch

from tutorial_utils.lessons.exercise import NotYet, as_number, as_tensor, call, exercise


@exercise("one token and a million tokens, with numbers of 1, 2 and 4 bytes.")
def check_bytes_on_disk(bytes_on_disk: Callable) -> None:
    """`bytes_on_disk(tokens, layers, hidden, itemsize)` gives the bytes of all vectors."""
    for tokens, layers, hidden, itemsize in [(1, 1, 128, 4), (10**6, 33, 4096, 2), (7, 3, 5, 1)]:
        case = f"{tokens} tokens, {layers} layers, {hidden} numbers of {itemsize} bytes"
        got = call(bytes_on_disk, tokens, layers, hidden, itemsize, case=case)
        got = as_number(got, case=case, hint="return one number.")
        want = tokens * layers * hidden * itemsize
        if got * itemsize == want and itemsize > 1:
            raise NotYet(f"for {case} you gave {got:,.0f}.", "that counts numbers: times itemsize.")
        if got != want:
            hint = "multiply all four: each token has `hidden` numbers at each layer."
            raise NotYet(f"for {case} expected {want:,}, got {got:,.0f}.", hint)


@exercise("padding on the left, on the right and none, in batches of 1 to 3.")
def check_positions_of(positions_of: Callable) -> None:
    """`positions_of(mask)` gives each real token its place in the prompt, `(batch, seq)`."""
    masks = {
        "no padding": [[1, 1, 1], [1, 1, 1]],
        "padding on the right": [[1, 0, 0, 0], [1, 1, 1, 0]],
        "padding on the left": [[0, 0, 1, 1], [1, 1, 1, 1], [0, 1, 1, 1]],
        "one prompt, padding on the left": [[0, 1, 1]],
    }
    for case, rows in masks.items():
        mask = torch.tensor(rows)
        real, want = mask.bool(), torch.cat([torch.arange(sum(row)) for row in rows])
        got = as_tensor(call(positions_of, mask, case=case), case=case)
        if got.shape != mask.shape:
            found = f"for {case} expected shape {tuple(mask.shape)}, got {tuple(got.shape)}."
            raise NotYet(found, "one position for each column of a row: `dim=1` keeps the shape.")
        if got.is_floating_point() or got.dtype == torch.bool:
            raise NotYet(f"for {case} you gave {got.dtype}.", "positions are whole numbers.")
        if torch.equal(got[real], want + 1):
            raise NotYet(f"for {case} all are one too high.", "the first real token is at 0.")
        if not torch.equal(got[real], want):
            found = f"for {case} the real tokens got {got[real].tolist()}, not {want.tolist()}."
            raise NotYet(found, "`mask.cumsum(dim=1)` counts the real tokens up to each column.")
        if got.min() < 0:
            found = f"for {case} the padding got {int(got.min())}."
            raise NotYet(found, "no learned position is below 0: use `clamp`.")


@exercise("one prompt, prompts of one length, and 200 prompts of 1 to 60 tokens.")
def check_batches_of(batches_of: Callable) -> None:
    """`batches_of(lengths, tokens)` gives batches of numbers of prompts, a list of lists."""
    rng = random.Random(0)
    many = [rng.randint(1, 60) for _ in range(200)]
    for case, lengths, tokens in [
        ("one prompt of 5 tokens", [5], 8),
        ("six prompts of 4 tokens, 8 in a batch", [4] * 6, 8),
        ("200 prompts, 300 tokens in a batch", many, 300),
    ]:
        got = call(batches_of, lengths, tokens, case=case)
        try:
            batches = [[operator.index(i) for i in batch] for batch in got]
        except TypeError:
            hint = "each batch is a list of its own, and so is the whole."
            raise NotYet(f"for {case} it is not a list of lists.", hint) from None
        numbers = sorted(i for batch in batches for i in batch)
        if numbers != list(range(len(lengths))):
            missing = len(set(range(len(lengths))) - set(numbers))
            found = f"for {case} not every prompt is in exactly one batch: {missing} are in none."
            raise NotYet(found, "the last batch is still open when the loop ends.")
        if not all(batches):
            raise NotYet(f"for {case} there is an empty batch.", "do not append an empty batch.")
        sizes = [len(batch) * max(lengths[i] for i in batch) for batch in batches]
        if max(sizes) > tokens:
            found = f"for {case} a batch has {max(sizes)} tokens with its padding."
            raise NotYet(found, "rows times the longest row: count the row that you would add.")
        if sum(sizes) - sum(lengths) > sum(sizes) / 10:
            share = (sum(sizes) - sum(lengths)) / sum(sizes)
            raise NotYet(f"for {case} {share:.0%} is padding.", "go through the prompts by length.")
        # Also right, with one batch more: from the longest prompt to the shortest.
        if len(batches) > _fewest(lengths, tokens) + len(lengths) // 100:
            found = f"for {case} there are {len(batches)} batches."
            raise NotYet(found, "begin a new batch only when the next row does not fit.")


def _fewest(lengths: list[int], tokens: int) -> int:
    """The number of batches that are filled one after the other, the shortest prompts first."""
    batches, rows = 1, 0
    for length in sorted(lengths):
        batches, rows = (batches, rows + 1) if (rows + 1) * length <= tokens else (batches + 1, 1)
    return batches
