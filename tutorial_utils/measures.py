"""Norms, changes and similarities of recorded activations.

`activations` are what `record_activations` gives: {layer number: tensor (batch, seq, hidden)}.
`layers` are some of its numbers, all by default. Results are float32 on the CPU, of the first
prompt of the batch. No layers raise ValueError, a layer that was not recorded KeyError.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch


def residual_norms(
    activations: Mapping[int, torch.Tensor], layers: Sequence[int] | None = None
) -> torch.Tensor:
    """Euclidean norm of the residual stream, `(layers, seq)`. By hand: the lesson on hooks."""
    return _stack(activations, layers).norm(dim=-1)


def residual_changes(
    activations: Mapping[int, torch.Tensor], layers: Sequence[int] | None = None
) -> torch.Tensor:
    """Relative change between consecutive picked layers, ‖b − a‖ / ‖a‖, `(layers - 1, seq)`.

    Row 0 is the change from the first to the second of `layers`. By hand: the lesson on hooks.
    """
    stacked = _stack(activations, layers)
    return (stacked[1:] - stacked[:-1]).norm(dim=-1) / stacked[:-1].norm(dim=-1)


def layer_similarity(
    activations: Mapping[int, torch.Tensor],
    layers: Sequence[int] | None = None,
    *,
    position: int = -1,
) -> torch.Tensor:
    """Cosine similarity, -1 to 1, between layers at one token, `(layers, layers)`.

    By hand: the lesson on hooks.
    """
    at_token = torch.nn.functional.normalize(_stack(activations, layers)[:, position], dim=-1)
    return at_token @ at_token.T


def largest_coordinates(
    activations: Mapping[int, torch.Tensor],
    layers: Sequence[int] | None = None,
    *,
    position: int = -1,
    k: int = 6,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The `k` coordinates furthest from 0 at one token: their numbers and values, `(layers, k)`.

    Largest first; all coordinates where there are fewer than `k`. By hand: the lesson on hooks.
    """
    at_token = _stack(activations, layers)[:, position]
    places = at_token.abs().topk(min(k, at_token.shape[-1]), dim=-1).indices
    return places, at_token.gather(-1, places)


def _stack(activations: Mapping[int, torch.Tensor], layers: Sequence[int] | None) -> torch.Tensor:
    """The picked layers of the first prompt, `(layers, seq, hidden)`."""
    layers = list(activations if layers is None else layers)
    if not layers:
        raise ValueError("no layers were picked: pick at least one")
    return torch.stack([activations[i][0].detach().float().cpu() for i in layers])
