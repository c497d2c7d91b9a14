"""The checks of lesson 07 say right to right answers, and give a hint for the usual wrong ones."""

import pytest
import torch

from tutorial_utils.lessons.checks import check_carriers, check_put_at, check_without

SHARE = torch.tensor([[0.0, 1.0, 0.0], [0.1, 0.6, 0.2], [0.0, 0.3, 0.9], [0.0, 0.0, 1.0]])


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (SHARE.argmax(dim=1), "Right: "),
        (..., "Not tried yet: "),
        (SHARE.argmax(dim=0), "these are layers, one for each token"),
        (SHARE.max(dim=1).values, "argmax, not max"),
        (SHARE.argmin(dim=1), "expected 2 at one place, got 0"),
        ([1, 1, 2, 2], "got list"),
    ],
)
def test_carriers(capsys, answer, verdict):
    check_carriers(answer, SHARE)
    assert verdict in capsys.readouterr().out


def test_carriers_of_as_many_layers_as_tokens(capsys):
    square = SHARE[1:]
    check_carriers(square.argmax(dim=0), square)
    assert "these are layers" in capsys.readouterr().out


def right_put_at(source, positions):
    def edit(hidden):
        new = hidden.clone()
        rows = torch.arange(len(positions))
        new[rows, positions] = source[0, positions].to(hidden)
        return new

    return edit


def in_place(source, positions):
    def edit(hidden):
        hidden[torch.arange(len(positions)), positions] = source[0, positions].to(hidden)
        return hidden

    return edit


def every_position_in_every_row(source, positions):
    def edit(hidden):
        new = hidden.clone()
        new[:, positions] = source[:, positions].to(hidden)
        return new

    return edit


def whole_source(source, positions):
    return lambda hidden: source.expand_as(hidden).to(hidden)


def becomes_float32(source, positions):
    return lambda hidden: right_put_at(source, positions)(hidden).float()


def wants_one_row(source, positions):
    def edit(hidden):
        new = hidden.clone()
        new[0, positions[0]] = source[0, positions[0]].to(hidden)
        return new

    return edit


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (right_put_at, "Right: "),
        (lambda source, positions: ..., "Not tried yet: "),
        (lambda source, positions: lambda hidden: ..., "Not tried yet: "),
        (in_place, "changed its input in place"),
        (every_position_in_every_row, "every row took all of the positions"),
        (whole_source, "only token positions[r] of row r changes"),
        (becomes_float32, "it is torch.float32"),
        (wants_one_row, "a row for each token"),
        (lambda source, positions: source, "return a function"),
        (lambda source, positions: lambda hidden: None, "is there a `return`"),
        (lambda source, positions: 1 / 0, "raised ZeroDivisionError"),
    ],
)
def test_put_at(capsys, answer, verdict):
    check_put_at(answer)
    assert verdict in capsys.readouterr().out


def right_without(hidden, direction):
    unit = direction / direction.norm()
    return hidden - (hidden @ unit)[..., None] * unit


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (right_without, "Right: "),
        (lambda hidden, direction: ..., "Not tried yet: "),
        (lambda hidden, direction: hidden - direction, "every token lost the same vector"),
        (
            lambda hidden, direction: hidden - (hidden @ direction)[..., None] * direction,
            "a direction of norm 3",
        ),
        (lambda hidden, direction: hidden @ direction, "expected shape (2, 3, 8), got (2, 3)"),
        (lambda hidden, direction: hidden, "divide the direction by its norm"),
    ],
)
def test_without(capsys, answer, verdict):
    check_without(answer)
    assert verdict in capsys.readouterr().out
