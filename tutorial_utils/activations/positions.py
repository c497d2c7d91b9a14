"""Which token positions of a forward pass are kept."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

Positions = str | int | Iterable[int] | None  # as the caller gives them


def check_positions(positions: Positions) -> str | list[int] | None:
    """None for all, "last", or a list of column numbers; ValueError for anything else."""
    if positions is None or (isinstance(positions, str) and positions == "last"):
        return positions
    numbers: list = list(positions) if isinstance(positions, Iterable) else [positions]
    if numbers and all(hasattr(n, "__index__") and not isinstance(n, bool) for n in numbers):
        return [int(n) for n in numbers]
    raise ValueError(
        f'positions are None for all, "last", or a list of column numbers, not {positions!r}'
    )


def columns_to_keep(positions: str | list[int], seq: int, mask: object) -> Tensor | slice:
    """The columns to keep of `seq`: (batch or 1, positions), or a slice that all rows share.

    Raises ValueError for a column that is not there, and for a mask that does not tell which
    tokens are real.
    """
    if positions != "last":
        wrong = [n for n in positions if not -seq <= int(n) < seq]
        if wrong:
            raise ValueError(
                f"position {wrong[0]} is not in this input: it has positions 0 to {seq - 1}"
            )
        return torch.tensor([positions])
    if mask is None:
        return slice(seq - 1, seq)
    if not isinstance(mask, Tensor) or mask.dim() != 2:
        raise ValueError('positions="last" needs an attention mask of shape (batch, seq)')
    real = mask[:, -seq:] != 0  # with a cache the mask covers the earlier tokens too
    if not real.any(dim=1).all():
        raise ValueError('positions="last": a row of this input has no real token')
    return seq - 1 - real.flip(1).int().argmax(dim=1, keepdim=True)
