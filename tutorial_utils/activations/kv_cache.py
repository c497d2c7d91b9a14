"""Recognise a KV cache, whatever its form: an object of transformers, or lists of tensors."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor


def cache_candidates(values: Iterable) -> list:
    """Those that may be a KV cache, or hold one."""
    return [value for value in values if value is not None and type(value) not in (Tensor, bool)]


def is_cache(value: object) -> bool:
    return hasattr(value, "get_seq_length")


def cache_length(cache: object, otherwise: int) -> int:
    """Number of tokens in a KV cache; `otherwise` where it cannot tell, as with state spaces."""
    try:
        return int(cache.get_seq_length()) if is_cache(cache) else otherwise
    except ValueError:
        return otherwise


def cache_identity(value: object) -> object:
    """What tells one cache from another: itself, or the first tensor of a list of tensors."""
    if isinstance(value, Tensor):
        return None
    if isinstance(value, (list, tuple)):
        return cache_state(value)
    return value if hasattr(value, "__dict__") else None


def cache_state(value: object, depth: int = 4) -> Tensor | None:
    """The first tensor in a cache that has a row for each row of the batch."""
    if isinstance(value, Tensor):
        return value if value.dim() > 2 else None
    if not isinstance(value, (list, tuple)):
        value = (value if isinstance(value, dict) else getattr(value, "__dict__", {})).values()
    parts = (cache_state(part, depth - 1) for part in value) if depth else ()
    return next((tensor for tensor in parts if tensor is not None), None)
