"""Call a function on the residual stream at chosen decoder layers of a model.

The lesson on hooks derives the hooks themselves by hand. This module registers them, checks what
they see, and removes them whatever happens. It is written to be fast: on a model of a few million
parameters, even 10 microseconds per hook slow the model down noticeably.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from tutorial_utils.activations.layers import NO_STREAM, DecoderLayers

LayerFunction = Callable[[int, Tensor], "Tensor | None"]


class Stop(Exception):
    """Raised by a hook to end the forward pass; its argument is for the code that catches it."""


@contextmanager
def hooked_layers(
    where: DecoderLayers,
    functions: dict[int, LayerFunction],
    see_inputs: Callable | None = None,
    start_pass: Callable | None = None,
    end_pass: Callable | None = None,
) -> Iterator[None]:
    """Call `functions[number](number, hidden)` at each of these layers while the block runs.

    `hidden` is (batch, seq, hidden). It is not checked here: the function calls `check_stream`. A
    tensor that the function returns replaces it; None changes nothing. `start_pass` is a forward
    pre-hook for the module that runs the layers, and `end_pass` a forward hook for it. `see_inputs`
    is a forward pre-hook for each module around that one.

    Raises ValueError while another thread has such a block open on this model: the hooks of each
    thread would act on the passes of the other. The passes themselves may run in any thread.
    """
    handles, layers, scope, owner = [], list(where.layers), _scope.get(), where.owners[-1]
    threads = _enter(owner, scope)
    entered = threads[-1]
    try:
        if see_inputs is not None:
            for part in where.owners[:-1]:
                hook = _in_scope(scope, see_inputs)
                handles.append(part.register_forward_pre_hook(hook, with_kwargs=True))
        if start_pass is not None:
            hook = _in_scope(scope, start_pass)
            handles.append(owner.register_forward_pre_hook(hook, with_kwargs=True))
        if end_pass is not None:
            handles.append(owner.register_forward_hook(_in_scope(scope, end_pass)))
        for number, function in functions.items():
            if number == 0:
                hook = _before_first_layer(function, scope)
                handles.append(layers[0].register_forward_pre_hook(hook, with_kwargs=True))
            else:
                hook = _after_layer(number, function, scope)
                handles.append(layers[number - 1].register_forward_hook(hook))
        _stop_compiling()
        try:
            yield
        finally:
            _compile_again()
    finally:
        for handle in handles:
            handle.remove()
        threads.remove(entered)


@contextmanager
def hooked_modules(
    where: DecoderLayers, hooks: Iterable[tuple[Callable, Callable]]
) -> Iterator[None]:
    """Put hooks on modules inside the decoder layers while the block runs.

    hooks: pairs of a method that registers, such as `module.register_forward_hook`, and a hook for
        it that also takes the keyword arguments (`with_kwargs=True`).
    """
    scope = _scope.get()
    with hooked_layers(where, {}), ExitStack() as stack:
        for register, hook in hooks:
            stack.callback(register(_in_scope(scope, hook), with_kwargs=True).remove)
        yield


def _before_first_layer(function: LayerFunction, scope: object) -> Callable:
    """A hook for layer 0, the input of the first decoder layer."""

    def before(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        if _scope.get() is not scope:
            return None
        if args:
            new = function(0, args[0])
            return None if new is None else ((new, *args[1:]), kwargs)
        name = "hidden_states" if "hidden_states" in kwargs else next(iter(kwargs))
        new = function(0, kwargs[name])
        return None if new is None else (args, {**kwargs, name: new})

    return before


def _after_layer(number: int, function: LayerFunction, scope: object) -> Callable:
    """A hook for layer i, the output of the ith decoder layer."""

    def after(module: nn.Module, args: tuple, output: Any) -> object:
        if _scope.get() is not scope:
            return None
        # Llama's layers return a tensor, GPT-J's a tuple that begins with it, GPT's a list.
        if type(output) not in (tuple, list):
            return function(number, output)
        new = function(number, output[0])
        return None if new is None else type(output)([new, *output[1:]])

    return after


def check_stream(number: int, hidden: object, width: int | None) -> None:
    """Raise ValueError if this is not the residual stream of a model of this hidden size."""
    if not isinstance(hidden, Tensor):
        raise ValueError(NO_STREAM.format(f"layer {number} gives {type(hidden).__name__}"))
    if hidden.dim() != 3 or width not in (None, hidden.shape[2]):
        raise ValueError(NO_STREAM.format(f"layer {number} gives shape {tuple(hidden.shape)}"))


def edits_by_layer(
    edits: Mapping[int, Callable[[Tensor], Tensor]], numbers_of: Callable[[Any], list[int]]
) -> dict[int, Callable[[Tensor], Tensor]]:
    """The functions by layer number, none of them negative; `numbers_of` gives the numbers.

    Raises ValueError for edits of another form, and for a layer that is given twice.
    """
    if not isinstance(edits, Mapping) or not all(callable(edit) for edit in edits.values()):
        raise ValueError(f"edits are given as {{layer number: function}}, not as {edits!r}")
    numbers = numbers_of(edits)
    if len(numbers) < len(edits):
        raise ValueError(f"two of these layers are the same one: {list(edits)}")
    return dict(zip(numbers, edits.values()))


def run_edit(edit: Callable[[Tensor], Tensor], given: Tensor, what: str) -> Tensor:
    """Return `edit(given)`; ValueError if its shape, dtype or device is not that of `given`."""
    new = edit(given)
    found, wanted = (
        f"{tuple(t.shape)}, {t.dtype}, {t.device}" if isinstance(t, Tensor) else repr(t)
        for t in (new, given)
    )
    if found != wanted:
        raise ValueError(f"the edit of {what} returned {found} instead of {wanted}")
    return new


# Reentrant, because garbage collection can end a block anywhere, also while this lock is held.
_lock = threading.RLock()
# For each module that runs decoder layers: the thread of each block that is open on it.
_threads: weakref.WeakKeyDictionary[nn.Module, list] = weakref.WeakKeyDictionary()


def _enter(owner: nn.Module, scope: object) -> list[threading.Thread]:
    """Add this thread to those that have blocks open on this module, and return them all."""
    thread = threading.current_thread()
    if scope is not None:  # inside `aside`, hooks never see the passes of other threads
        return [thread]
    with _lock:
        threads = _threads.get(owner)
        if threads is None:
            threads = _threads[owner] = []
        for other in threads:
            if other is not thread and other.is_alive():
                raise ValueError(
                    "another thread records or edits the activations of this model at the moment, "
                    "and the two would act on each other's forward passes: let one finish first, "
                    "or load one model for each thread"
                )
        threads.append(thread)
        return threads


# The `aside` block that the current code runs in, if any. A new thread begins outside of all.
_scope: ContextVar[object] = ContextVar("the aside around this forward pass", default=None)


@contextmanager
def aside() -> Iterator[None]:
    """Run the model unseen by the hooks outside: only hooks registered inside this block act."""
    before = _scope.set(object())
    try:
        yield
    finally:
        _scope.reset(before)


def _in_scope(scope: object, hook: Callable) -> Callable:
    return lambda *args: hook(*args) if _scope.get() is scope else None


# A compiled graph does not see hooks that are registered later. So compiled code runs as plain
# Python while a block is open. The setting is global: the last block that ends resets it.
_open_blocks = 0
_uncompiled: list[AbstractContextManager] = []


def _stop_compiling() -> None:
    global _open_blocks
    with _lock:
        if not _open_blocks:
            if hasattr(torch.compiler, "set_stance"):  # from torch 2.6 on
                _uncompiled.append(torch.compiler.set_stance("force_eager"))  # takes effect at once
            elif "torch._dynamo.eval_frame" in sys.modules:  # if not, nothing is compiled yet
                _uncompiled.append(_force_eager())
                _uncompiled[0].__enter__()
        _open_blocks += 1


def _compile_again() -> None:
    global _open_blocks
    with _lock:
        _open_blocks -= 1
        if not _open_blocks and _uncompiled:
            _uncompiled.pop().__exit__(None, None, None)


def _force_eager() -> AbstractContextManager:
    """Do what `set_stance("force_eager")` does, for torch 2.4 and 2.5, which lack that function.

    In these versions a compiled function sets a callback that looks up its graphs. Setting None
    instead makes it run as plain Python.
    """
    module = sys.modules["torch._dynamo.eval_frame"]
    name = "_maybe_set_eval_frame" if hasattr(module, "_maybe_set_eval_frame") else "set_eval_frame"
    set_callback = getattr(module, name)

    def set_none(callback: object) -> object:
        return set_callback(None)

    return mock.patch.object(module, name, set_none)
