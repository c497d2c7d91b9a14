"""Call a function on the residual stream at chosen decoder layers of a model.

The lesson on hooks derives the hooks themselves by hand. This module puts them in, checks what
they see, and takes them out whatever happens. It is written to cost little: on a model of a few
million parameters a hook that takes 10 microseconds is felt.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from tutorial_utils.activations.layers import NO_STREAM, DecoderLayers

LayerFunction = Callable[[int, Tensor], "Tensor | None"]


class Stop(Exception):
    """Raised to leave the forward pass; its argument is what the one who waits for it wants."""


@contextmanager
def hooked_layers(
    where: DecoderLayers,
    functions: dict[int, LayerFunction],
    see_inputs: Callable | None = None,
    start_pass: Callable | None = None,
    end_pass: Callable | None = None,
) -> Iterator[None]:
    """Call `functions[number](number, hidden)` at each of these layers while the block runs.

    `hidden` is (batch, seq, hidden); it is not validated here, callers use `check_stream`. A tensor
    that the function returns takes its place; None changes nothing. `start_pass` is a forward
    pre-hook for the part that runs the layers, `end_pass` a forward hook for it, and `see_inputs` a
    forward pre-hook for each part around it.

    Raises ValueError while another thread has such a block open on this model: the hooks of each
    would act on the passes of the other. Passes themselves may run in any thread.
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
    """Put hooks on parts of decoder layers while the block runs, as `hooked_layers` on the layers.

    hooks: pairs of a module's method to register with, such as `module.register_forward_hook`, and
        a hook that takes the arguments by name too.
    """
    scope = _scope.get()
    with hooked_layers(where, {}), ExitStack() as stack:
        for register, hook in hooks:
            stack.callback(register(_in_scope(scope, hook), with_kwargs=True).remove)
        yield


def _before_first_layer(function: LayerFunction, scope: object) -> Callable:
    """A hook for layer 0, which is what goes into the first decoder layer."""

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
    """A hook for layer i, which is what comes out of the ith decoder layer."""

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


def run_edit(edit: Callable[[Tensor], Tensor], given: Tensor, what: str) -> Tensor:
    """What `edit` makes of `given`; ValueError for another shape, dtype or device."""
    new = edit(given)
    found, wanted = (
        f"{tuple(t.shape)}, {t.dtype}, {t.device}" if isinstance(t, Tensor) else repr(t)
        for t in (new, given)
    )
    if found != wanted:
        raise ValueError(f"the edit of {what} returned {found} instead of {wanted}")
    return new


_lock = threading.RLock()  # a block may end in a garbage collection, which can come anywhere
# The threads that have blocks open, by the part that runs the layers, a thread for each block.
_threads: weakref.WeakKeyDictionary[nn.Module, list] = weakref.WeakKeyDictionary()


def _enter(owner: nn.Module, scope: object) -> list[threading.Thread]:
    """The threads that have blocks open here, this one added."""
    thread = threading.current_thread()
    if scope is not None:  # no other thread's pass runs in this aside
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
                    "or give each thread a model of its own"
                )
        threads.append(thread)
        return threads


# Which `aside` the code that runs now is in. A thread begins outside of all of them.
_scope: ContextVar[object] = ContextVar("the aside around this forward pass", default=None)


@contextmanager
def aside() -> Iterator[None]:
    """Run the model for a purpose of one's own: only hooks put in inside this block see it."""
    before = _scope.set(object())
    try:
        yield
    finally:
        _scope.reset(before)


def _in_scope(scope: object, hook: Callable) -> Callable:
    return lambda *args: hook(*args) if _scope.get() is scope else None


# A graph made before does not see hooks put in later, so compiled code runs as plain Python while
# a block is open. The setting is one for the whole process: the last block to end undoes it.
_open_blocks = 0
_uncompiled: list[AbstractContextManager] = []


def _stop_compiling() -> None:
    global _open_blocks
    with _lock:
        if not _open_blocks:
            if hasattr(torch.compiler, "set_stance"):  # from torch 2.6 on
                _uncompiled.append(torch.compiler.set_stance("force_eager"))  # holds from here on
            elif "torch._dynamo.eval_frame" in sys.modules:  # else nothing has been compiled
                _uncompiled.append(_compiled_code_left_out())
                _uncompiled[0].__enter__()
        _open_blocks += 1


def _compile_again() -> None:
    global _open_blocks
    with _lock:
        _open_blocks -= 1
        if not _open_blocks and _uncompiled:
            _uncompiled.pop().__exit__(None, None, None)


def _compiled_code_left_out() -> AbstractContextManager:
    """What `set_stance("force_eager")` does, for torch 2.4 and 2.5, which have no such setting.

    There a compiled function sets a callback that finds its graphs, and runs: it is set to None.
    """
    module = sys.modules["torch._dynamo.eval_frame"]
    name = "_maybe_set_eval_frame" if hasattr(module, "_maybe_set_eval_frame") else "set_eval_frame"
    set_callback = getattr(module, name)

    def set_none(callback: object) -> object:
        return set_callback(None)

    return mock.patch.object(module, name, set_none)
