"""Norms, changes and similarities of recorded activations; scores of attention patterns.

`activations` are those that `record_activations` returns: {layer number: (batch, seq, hidden)}.
`layers` are the layer numbers to use; all by default. Results are float32 on the CPU. Those of
activations are only for the first prompt of the batch. An empty `layers` raises ValueError; a layer
that was not recorded raises KeyError.
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


def head_scores(
    patterns: Mapping[int, torch.Tensor], kind: str, *, period: int | None = None, start: int = 0
) -> dict[int, torch.Tensor]:
    """How much attention each head pays to one kind of token, 0 to 1: `{layer: (batch, head)}`.

    For each query, the attention weights of the keys of this kind are added up. The score is the
    mean over all queries that have such a key (Olsson et al. 2022, "In-context Learning and
    Induction Heads", arXiv:2209.11895).
    By hand: the lesson on attention heads.

    Args:
        patterns: `{layer: (batch, head, query, key)}`, as `read_attention` returns them.
        kind: "previous" is the token before the query. "first" is the token in column `start`.
            "induction" is for text that repeats the same tokens: each token that followed an
            earlier copy of the query's token (called prefix matching in the paper).
        period: for "induction", the number of tokens after which the text repeats.
        start: the column in which the text begins: 1 if a BOS comes before it.
    """
    if kind not in ("previous", "first", "induction"):
        raise ValueError(f'kind is "previous", "first" or "induction", not {kind!r}')
    if kind == "induction" and not (period and period > 1):
        raise ValueError(f'"induction" needs a period of 2 tokens or more, not {period}')
    scores = {}
    for layer, pattern in patterns.items():
        query, key = (torch.arange(n, device=pattern.device) for n in pattern.shape[-2:])
        back = query[:, None] - key  # (query, key): how many tokens the key is behind the query
        wanted = (back > 0) & (key >= start)
        if kind == "previous":
            wanted &= back == 1
        elif kind == "first":
            wanted &= key == start
        elif period:  # the token before the key is an earlier copy of the query's token
            wanted &= ((back + 1) % period == 0) & (key > start)
        has_one = wanted.any(dim=-1)
        if not has_one.any():
            raise ValueError(
                f'no query has a token of kind "{kind}" before it: the number of tokens '
                f"is {len(query)}, start is {start} and period is {period}"
            )
        given = (pattern.float() * wanted).sum(dim=-1)  # (batch, head, query)
        scores[layer] = given[..., has_one].mean(dim=-1).cpu()
    return scores


def _stack(activations: Mapping[int, torch.Tensor], layers: Sequence[int] | None) -> torch.Tensor:
    """The picked layers of the first prompt, `(layers, seq, hidden)`."""
    layers = list(activations if layers is None else layers)
    if not layers:
        raise ValueError("no layers were picked: pick at least one")
    return torch.stack([activations[i][0].detach().float().cpu() for i in layers])
