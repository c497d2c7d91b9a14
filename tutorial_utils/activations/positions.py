"""Which token positions of a forward pass are kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

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
    allowed = 'None for all, "last", or a list of column numbers'
    raise ValueError(f"positions are {allowed}, not {positions!r}")


def listed_columns(positions: list[int], seq: int) -> Tensor:
    """The columns asked for, (1, positions); ValueError for one that is not among `seq`."""
    for number in positions:
        if not -seq <= number < seq:
            last = seq - 1
            raise ValueError(
                f"position {number} is not in this input: it has positions 0 to {last}"
            )
    return torch.tensor([positions])


def real_tokens(mask: object, seq: int, past: int | None) -> Tensor | None:
    """Which tokens of a pass are not padding, (batch, seq); None if all are real.

    `mask` is the attention mask that the model was given, (batch, all tokens so far). Inside
    `generate`, transformers may have replaced it by masks of shape (batch, 1, query, key), one for
    each kind of layer. In such a mask a token is real if it may attend to itself.

    `seq` is the number of tokens in this pass. `past` is the number of tokens in the KV cache
    before it, or None if the cache does not say. Raises ValueError for a mask of another form.
    """
    given = mask
    if isinstance(mask, Mapping):
        # If one kind of layer has no mask, it hides only the future: there is no padding.
        mask = None if any(m is None for m in mask.values()) else next(iter(mask.values()))
    if mask is None:
        return None
    if isinstance(mask, Tensor) and mask.dim() == 2:
        # The mask covers the earlier tokens too. With a static cache, some models also give it
        # columns for tokens that are still to come.
        end = mask.shape[1] if past is None else min(past + seq, mask.shape[1])
        return mask[:, max(end - seq, 0) : end] != 0
    if isinstance(mask, Tensor) and mask.dim() == 4 and mask.shape[2] == seq <= mask.shape[3]:
        # The keys are all tokens so far. In a sliding window they are the latest ones only.
        first_key = min(past or 0, mask.shape[3] - seq)  # of the first token of this pass
        at_itself = mask[:, 0].diagonal(first_key, dim1=1, dim2=2)
        if mask.is_floating_point():  # added to the scores: 0, or a very large negative number
            return at_itself > torch.finfo(mask.dtype).min / 2
        return at_itself != 0
    shape = f"shape {tuple(given.shape)}" if isinstance(given, Tensor) else type(given).__name__
    raise ValueError(
        f'positions="last" needs an attention mask of shape (batch, seq), not {shape}: '
        "record all positions, and pick those you need"
    )


def last_columns(real: Tensor) -> Tensor:
    """The column of the last real token of each row, (batch, 1)."""
    return real.shape[1] - 1 - real.flip(1).int().argmax(dim=1, keepdim=True)
