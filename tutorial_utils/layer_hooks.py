"""Find the decoder layers of a model, and call a function on the residual stream at each.

The hooks themselves are derived by hand in lesson 04. This module puts them in, checks what they
see, and takes them out whatever happens.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import torch
from torch import Tensor, nn

NO_STREAM = (
    "this model has no single residual stream of shape (batch, seq, hidden): {}. What it computes "
    "cannot be told by layer number; use hooks of your own, as in lesson 04"
)


class DecoderLayers(NamedTuple):
    """Where the decoder layers of a model are."""

    layers: nn.ModuleList
    owners: list[nn.Module]  # the parts around it, from the model to the one that runs the layers
    width: int | None  # hidden size, where the configuration tells


def find_decoder_layers(model: nn.Module) -> nn.ModuleList:
    """Return the list of decoder layers of a causal language model, first layer first.

    The list is found by structure: it is the `ModuleList` with as many entries as the model's
    text configuration has layers, in the part of the model that this configuration describes.
    Where that does not work, pass the part of the model that owns the list.

    Raises ValueError, naming the lists that were found, when none of them is the one.
    """
    return locate(model).layers


def locate(model: nn.Module) -> DecoderLayers:
    """Find the decoder layers, as `find_decoder_layers`, and the parts of the model around them."""
    model = getattr(model, "_orig_mod", model)  # out of the wrapper that `torch.compile` makes
    config = getattr(model, "config", None)
    if not hasattr(config, "get_text_config"):
        raise ValueError(
            f"{type(model).__name__} has no transformers configuration, so its number of layers "
            "is not known: pass a model that AutoModelForCausalLM.from_pretrained gave"
        )
    text = config.get_text_config(decoder=True)
    if text.model_type == "xlnet":  # no shape tells this where batch and seq are equal
        raise ValueError(NO_STREAM.format("its layers work on (seq, batch, hidden)"))
    # num_layers is the length where each entry of the list counts as two layers (LongCat).
    lengths = {getattr(text, "num_hidden_layers", None), getattr(text, "num_layers", None)}
    lists = list(_lists([model], "", config))
    found = [
        (layers, owners)
        for _, layers, owners, own in lists
        if len(layers) in lengths
        and next(layers[0].children(), None)  # not a list of norms or projections
        and (own is text or isinstance(own.get_text_config(decoder=True), type(text)))
    ]
    if config.is_encoder_decoder or len(found) != 1:  # unless the part that owns it was passed
        found = [(layers, owners) for _, layers, owners, _ in lists if owners == [model]]
    if len(found) != 1:
        seen = ", ".join(f"{path} ({len(layers)})" for path, layers, *_ in lists) or "none"
        raise ValueError(
            f"{type(model).__name__} has no single list of decoder layers to tell from its "
            f"configuration. Lists of modules in it, with their lengths: {seen}. If one of them "
            "is the list, pass the part that owns it, such as model.model.decoder"
        )
    return DecoderLayers(*found[0], getattr(text, "hidden_size", None))


def _lists(owners: list[nn.Module], path: str, config: object) -> Iterator[tuple]:
    """Each list of modules that is in no other: its path, itself, its owners, its configuration."""
    own = getattr(owners[-1], "config", None)
    config = own if hasattr(own, "get_text_config") else config
    for name, child in owners[-1].named_children():
        if isinstance(child, nn.ModuleList):
            yield path + name, child, owners, config
        else:
            yield from _lists([*owners, child], f"{path}{name}.", config)


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
    None changes nothing. `start` and `end` are hooks before and after the part of the model that
    runs the layers, `note` one before each part from the model down to that one.

    Raises ValueError inside the forward pass where the stream has another shape.
    """
    handles, layers, owner = [], list(where.layers), where.owners[-1]
    try:
        if note is not None:
            note, start, end = map(_at_this_depth, (note, start, end))
            for part in where.owners:
                handles.append(part.register_forward_pre_hook(note, with_kwargs=True))
            handles.append(owner.register_forward_pre_hook(start, with_kwargs=True))
            handles.append(owner.register_forward_hook(end, with_kwargs=True))
        for number, function in functions.items():
            handles.append(_hook_layer(layers, number, function, where.width))
        with _uncompiled():
            yield
    finally:
        for handle in handles:
            handle.remove()


def _hook_layer(
    layers: list[nn.Module], number: int, function: Callable, width: int | None
) -> object:
    # Layer 0 is what goes into the first decoder layer, layer i is what comes out of the ith.
    def before(module: nn.Module, args: tuple, kwargs: dict):
        key = None if args else "hidden_states" if "hidden_states" in kwargs else [*kwargs][0]
        new = function(0, _checked(0, args[0] if args else kwargs[key], width))
        if new is not None:
            return ((new, *args[1:]), kwargs) if args else (args, {**kwargs, key: new})

    def after(module: nn.Module, args: tuple, output: object):
        # Llama's layers return a tensor, GPT-J's a tuple that begins with it, GPT's a list.
        is_many = type(output) in (tuple, list)
        new = function(number, _checked(number, output[0] if is_many else output, width))
        if new is not None:
            return type(output)([new, *output[1:]]) if is_many else new

    if number == 0:
        return layers[0].register_forward_pre_hook(_at_this_depth(before), with_kwargs=True)
    return layers[number - 1].register_forward_hook(_at_this_depth(after))


_depth: ContextVar[int] = ContextVar("asides around this forward pass", default=0)


@contextmanager
def aside() -> Iterator[None]:
    """Run the model for a purpose of one's own: only hooks put in inside this block see it."""
    before = _depth.set(_depth.get() + 1)
    try:
        yield
    finally:
        _depth.reset(before)


def _at_this_depth(hook: Callable) -> Callable:
    depth = _depth.get()
    return lambda *args: hook(*args) if _depth.get() == depth else None


def _checked(number: int, hidden: object, width: int | None) -> Tensor:
    if isinstance(hidden, Tensor):
        shape = hidden.shape
        if len(shape) == 3 and width in (None, shape[2]):
            return hidden
    given = f"shape {tuple(shape)}" if isinstance(hidden, Tensor) else type(hidden).__name__
    raise ValueError(NO_STREAM.format(f"layer {number} gives {given}"))


_eager_lock, _eager_blocks, _eager_stance = threading.Lock(), [], []


@contextmanager
def _uncompiled() -> Iterator[None]:
    """Run compiled code as plain Python, since a graph made before does not see hooks put in later.

    The setting is one for the whole process, so the last block to end undoes it.
    """
    with _eager_lock:
        if not _eager_blocks and hasattr(torch.compiler, "set_stance"):  # from torch 2.6 on
            _eager_stance.append(torch.compiler.set_stance("force_eager"))
        _eager_blocks.append(None)
    try:
        yield
    finally:
        with _eager_lock:
            _eager_blocks.pop()
            if not _eager_blocks and _eager_stance:
                _eager_stance.pop().__exit__(None, None, None)
