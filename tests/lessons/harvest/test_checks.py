"""The checks of lesson 08 say right to right answers, and give a hint for the usual wrong ones."""

import pytest
import torch

from tutorial_utils.lessons.checks import check_batches_of, check_bytes_on_disk, check_positions_of


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (lambda tokens, layers, hidden, itemsize: tokens * layers * hidden * itemsize, "Right: "),
        (lambda *sizes: ..., "Not tried yet: "),
        (lambda tokens, layers, hidden, itemsize: tokens * layers * hidden, "times itemsize"),
        (lambda tokens, layers, hidden, itemsize: tokens * hidden * itemsize, "multiply all four"),
        (lambda *sizes: torch.tensor(512), "returned a Tensor"),
        (lambda *sizes: True, "returned a bool"),
        (lambda tokens: tokens, "raised TypeError"),
    ],
)
def test_bytes_on_disk(capsys, answer, verdict):
    check_bytes_on_disk(answer)
    assert verdict in capsys.readouterr().out


def in_place(mask):
    mask += 1
    return mask


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (lambda mask: (mask.cumsum(dim=1) - 1).clamp(min=0), "Right: "),
        (lambda mask: ..., "Not tried yet: "),
        (lambda mask: mask.cumsum(dim=1), "one too high"),
        (lambda mask: mask.cumsum(dim=1) - 1, "the padding got -1"),
        (lambda mask: torch.arange(mask.shape[1]).expand(mask.shape), "with padding on the left"),
        (lambda mask: (mask.cumsum(dim=0) - 1).clamp(min=0), "not [0, 1, 2"),
        (lambda mask: mask.sum(dim=1), "expected shape (2, 3), got (2,)"),
        (lambda mask: mask.tolist(), "got list"),
        (lambda mask: (mask.cumsum(dim=1) - 1.0).clamp(min=0), "whole numbers"),
        (in_place, "changed its input"),
        (None, "expected a function"),
    ],
)
def test_positions_of(capsys, answer, verdict):
    check_positions_of(answer)
    out = capsys.readouterr().out
    assert verdict.replace("with padding", "for padding") in out


def by_length(lengths, tokens):
    batches, batch = [], []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if batch and (len(batch) + 1) * lengths[i] > tokens:
            batches.append(batch)
            batch = []
        batch.append(i)
    return [*batches, batch] if batch else batches


def forgets_the_last(lengths, tokens):
    return by_length(lengths, tokens)[:-1]


def in_the_order_given(lengths, tokens):
    batches = [[]]
    for i, _ in enumerate(lengths):
        if (len(batches[-1]) + 1) * max(lengths[j] for j in (*batches[-1], i)) > tokens:
            batches.append([])
        batches[-1].append(i)
    return batches


def one_each(lengths, tokens):
    return [[i] for i in range(len(lengths))]


def sorts_what_it_got(lengths, tokens):
    result = by_length(lengths, tokens)
    lengths.sort()
    return result


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (by_length, "Right: "),
        (lambda lengths, tokens: ..., "Not tried yet: "),
        (forgets_the_last, "1 are in none"),
        (in_the_order_given, "is padding"),
        (one_each, "there are 200 batches"),
        (sorts_what_it_got, "changed the list"),
        (lambda lengths, tokens: [list(range(len(lengths)))], "a batch has 24 tokens"),
        (lambda lengths, tokens: [[], *by_length(lengths, tokens)], "an empty batch"),
        (lambda lengths, tokens: list(range(len(lengths))), "not a list of lists"),
        (lambda lengths, tokens: 3, "not a list of lists"),
        (lambda lengths, tokens: [[0, 0]], "exactly one batch"),
        (lambda lengths: [], "raised TypeError"),
    ],
)
def test_batches_of(capsys, answer, verdict):
    check_batches_of(answer)
    assert verdict in capsys.readouterr().out
