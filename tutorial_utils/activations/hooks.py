"""Call a function on the residual stream at chosen decoder layers of a model.

The hooks themselves are derived by hand in lesson 04. This module puts them in, checks what they
see, and takes them out whatever happens. It is written to cost little: on a model of a few million
parameters a hook that takes 10 microseconds is felt.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from unittest import mock

import torch
from torch import Tensor, nn

from tutorial_utils.activations.layers import NO_STREAM, DecoderLayers


@contextmanager
def hooked_layers(
    where: DecoderLayers,
    functions: dict[int, Callable[[int, Tensor], Tensor | None]],
    note: Callable | None = None,
    start: Callable | None = None,
    end: Callable | None = None,
) -> Iterator[None]:
    """Call `functions[number](number, hidden)` at each of these layers while the block runs.

    A tensor of shape (batch, seq, hidden) that the function returns takes the place of `hidden`;
    None changes nothing. `start` and `end` are hooks before and after the last of `where.owners`,
    which runs the layers, `note` is one before each of the others. What `hidden` is, is for the
    function to check: see `check_stream`.
    """
    handles, layers, depth = [], list(where.layers), _depth.get()
    try:
        for part in where.owners[:-1] if note is not None else ():
            hook = _at_depth(depth, note)
            handles.append(part.register_forward_pre_hook(hook, with_kwargs=True))
        if start is not None:
            owner, hook = where.owners[-1], _at_depth(depth, start)
            handles.append(owner.register_forward_pre_hook(hook, with_kwargs=True))
            handles.append(owner.register_forward_hook(_at_depth(depth, end)))
        for number, function in functions.items():
            if number == 0:
                hook = _before_first(function, depth)
                handles.append(layers[0].register_forward_pre_hook(hook, with_kwargs=True))
            else:
                hook = _after(number, function, depth)
                handles.append(layers[number - 1].register_forward_hook(hook))
        _stop_compiling()
        try:
            yield
        finally:
            _compile_again()
    finally:
        for handle in handles:
            handle.remove()


def _before_first(function: Callable, depth: int) -> Callable:
    """A hook for layer 0, which is what goes into the first decoder layer."""

    def before(module: nn.Module, args: tuple, kwargs: dict):
        if _depth.get() != depth:
            return None
        key = None if args else "hidden_states" if "hidden_states" in kwargs else [*kwargs][0]
        hidden = args[0] if args else kwargs[key]
        new = function(0, hidden)
        if new is not None:
            return ((new, *args[1:]), kwargs) if args else (args, {**kwargs, key: new})

    return before


def _after(number: int, function: Callable, depth: int) -> Callable:
    """A hook for layer i, which is what comes out of the ith decoder layer."""

    def after(module: nn.Module, args: tuple, output: object):
        if _depth.get() != depth:
            return None
        # Llama's layers return a tensor, GPT-J's a tuple that begins with it, GPT's a list.
        is_many = type(output) in (tuple, list)
        new = function(number, output[0] if is_many else output)
        if new is not None:
            return type(output)([new, *output[1:]]) if is_many else new

    return after


def check_stream(number: int, hidden: object, width: int | None) -> None:
    """Raise ValueError if this is not the residual stream of a model of this hidden size."""
    is_tensor = isinstance(hidden, Tensor)
    if not is_tensor or hidden.dim() != 3 or width not in (None, hidden.shape[2]):
        given = f"shape {tuple(hidden.shape)}" if is_tensor else type(hidden).__name__
        raise ValueError(NO_STREAM.format(f"layer {number} gives {given}"))


_depth: ContextVar[int] = ContextVar("asides around this forward pass", default=0)


@contextmanager
def aside() -> Iterator[None]:
    """Run the model for a purpose of one's own: only hooks put in inside this block see it."""
    before = _depth.set(_depth.get() + 1)
    try:
        yield
    finally:
        _depth.reset(before)


def _at_depth(depth: int, hook: Callable) -> Callable:
    return lambda *args: hook(*args) if _depth.get() == depth else None


# A graph made before does not see hooks put in later, so compiled code runs as plain Python while
# a block is open. The setting is one for the whole process: the last block to end undoes it.
_lock, _blocks, _uncompiled = threading.Lock(), [], []


def _stop_compiling() -> None:
    with _lock:
        if not _blocks:
            if hasattr(torch.compiler, "set_stance"):  # from torch 2.6 on
                _uncompiled.append(torch.compiler.set_stance("force_eager"))  # holds from here on
            elif "torch._dynamo.eval_frame" in sys.modules:  # else nothing has been compiled
                _uncompiled.append(_compiled_code_left_out())
                _uncompiled[0].__enter__()
        _blocks.append(None)


def _compile_again() -> None:
    with _lock:
        _blocks.pop()
        if not _blocks and _uncompiled:
            _uncompiled.pop().__exit__(None, None, None)


def _compiled_code_left_out() -> AbstractContextManager:
    """What `set_stance("force_eager")` does, for torch 2.4 and 2.5, which have no such setting.

    There a compiled function sets a callback that finds its graphs, and runs: it is set to None.
    """
    module = sys.modules["torch._dynamo.eval_frame"]
    name = "_maybe_set_eval_frame" if hasattr(module, "_maybe_set_eval_frame") else "set_eval_frame"
    set_callback = getattr(module, name)
    return mock.patch.object(module, name, lambda callback: set_callback(None))
