"""Recognise a KV cache, whatever its form: an object of transformers, or lists of tensors.

The recorder appends a forward pass to what it has if that pass is given the cache which the pass
before left. So it must find a cache among what a model takes and returns, tell one cache from
another, know how many tokens are in it, and notice that its rows changed places. Caches have many
classes and forms, and most say nothing of this: what they hold is looked at instead.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor


def cache_candidates(values: Iterable) -> list:
    """Of what a model takes or returns, that which may be a KV cache or hold one."""
    return [value for value in values if value is not None and type(value) not in (Tensor, bool)]


def is_cache(value: object) -> bool:
    """Whether this is a cache object of transformers, which can tell its number of tokens."""
    return hasattr(value, "get_seq_length")


def cache_length(cache: object, otherwise: int) -> int:
    """Number of tokens in a KV cache; `otherwise` where it cannot tell, as with state spaces."""
    count = getattr(cache, "get_seq_length", None)
    try:
        return otherwise if count is None else int(count())
    except ValueError:
        return otherwise


def cache_identity(value: object) -> object:
    """What stays the same object from pass to pass: the cache, or the first tensor of its lists.

    None for what cannot be a cache.
    """
    if isinstance(value, Tensor):
        return None
    if isinstance(value, (list, tuple)):
        return first_batch_tensor(value)
    return value if hasattr(value, "__dict__") else None


def first_batch_tensor(value: object, depth: int = 4) -> Tensor | None:
    """The first tensor in a cache that has a row for each row of the batch.

    A cache whose rows were moved, as beam search does, holds another tensor there.
    """
    if isinstance(value, Tensor):
        return value if value.dim() > 2 else None
    if not depth:
        return None
    if isinstance(value, dict):
        parts: Iterable = value.values()
    elif isinstance(value, (list, tuple)):
        parts = value
    else:
        parts = getattr(value, "__dict__", {}).values()
    found = (first_batch_tensor(part, depth - 1) for part in parts)
    return next((tensor for tensor in found if tensor is not None), None)
