"""Recognise a KV cache, whether it is an object of transformers or lists of tensors.

The recorder appends a forward pass to its record if that pass continues the cache of the pass
before. So it must find the cache among a model's inputs and outputs, tell caches apart, count their
tokens, and notice when their rows were reordered. Caches have many classes, and most offer no way
to ask for this. So this module looks at the tensors inside.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor


def cache_candidates(values: Iterable) -> list:
    """Those of a model's inputs or outputs that may be a KV cache or contain one."""
    return [value for value in values if value is not None and type(value) not in (Tensor, bool)]


def is_cache(value: object) -> bool:
    """Whether this is a cache object of transformers, which knows its number of tokens."""
    return hasattr(value, "get_seq_length")


def cache_length(cache: object, default: int) -> int:
    """Number of tokens in a KV cache; `default` if it does not say, as in state space models."""
    count = getattr(cache, "get_seq_length", None)
    try:
        return default if count is None else int(count())
    except ValueError:
        return default


def cache_identity(value: object) -> object:
    """The object that stays the same between passes: the cache, or the first tensor in its lists.

    None if `value` cannot be a cache.
    """
    if isinstance(value, Tensor):
        return None
    if isinstance(value, (list, tuple)):
        return first_batch_tensor(value)
    return value if hasattr(value, "__dict__") else None


def first_batch_tensor(value: object, depth: int = 4) -> Tensor | None:
    """The first tensor in a cache that has a row for each row of the batch.

    After beam search has reordered the rows of a cache, it is another tensor.
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
