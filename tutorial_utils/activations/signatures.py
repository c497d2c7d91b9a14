"""What the `forward` of a model, and of each part of it, takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache

from torch import nn


def parameters(module: nn.Module) -> tuple[str, ...]:
    """The names of what a module's `forward` takes, in order."""
    return _names(type(module).forward)


@cache
def _names(forward: Callable) -> tuple[str, ...]:
    return tuple(inspect.signature(forward).parameters)[1:]


def named_arguments(module: nn.Module, args: tuple, kwargs: Mapping) -> Mapping[str, object]:
    """All arguments of a call of this module by name."""
    return {**dict(zip(parameters(module), args)), **kwargs} if args else kwargs
