"""Find the decoder layers of a model, and call a function on the residual stream at each.

The hooks themselves are derived by hand in lesson 04. This module puts them in, checks what they
see, and takes them out whatever happens.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

NO_STREAM = (
    "this model has no single residual stream of shape (batch, seq, hidden): {}. What it computes "
    "cannot be told by layer number; use hooks of your own, as in lesson 04"
)


def find_decoder_layers(model: nn.Module) -> nn.ModuleList:
    """Return the list of decoder layers of a causal language model, first layer first.

    The list is found by structure: it is the `ModuleList` with as many entries as the model's
    text configuration has layers, in the part of the model that this configuration describes.
    Where that does not work, pass the part of the model that owns the list.

    Raises ValueError, naming the lists that were found, when none of them is the one.
    """
    model = unwrapped(model)
    return model.get_submodule(_find(model))


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside the wrapper that `torch.compile` makes."""
    return getattr(model, "_orig_mod", model)


def _lists(
    part: nn.Module, path: str, config: object
) -> Iterator[tuple[str, nn.ModuleList, object]]:
    """Each list of modules that is in no other list: its dotted path, itself, its configuration."""
    own = getattr(part, "config", None)
    config = own if hasattr(own, "get_text_config") else config
    for name, child in part.named_children():
        if isinstance(child, nn.ModuleList):
            yield path + name, child, config
        else:
            yield from _lists(child, f"{path}{name}.", config)


def _find(model: nn.Module) -> str:
    """The dotted path of the list of decoder layers."""
    config = getattr(model, "config", None)
    if not hasattr(config, "get_text_config"):
        raise ValueError(
            f"{type(model).__name__} has no transformers configuration, so its number of layers "
            "is not known: pass a model that AutoModelForCausalLM.from_pretrained gave"
        )
    text = config.get_text_config(decoder=True)
    # num_layers is the length where each entry of the list counts as two layers (LongCat).
    lengths = {getattr(text, "num_hidden_layers", None), getattr(text, "num_layers", None)}
    lists = list(_lists(model, "", config))
    found = [
        path
        for path, layers, own in lists
        if len(layers) in lengths
        and any(True for _ in layers[0].children())  # not a list of norms or projections
        and isinstance(own.get_text_config(decoder=True), type(text))  # not the vision part
    ]
    if config.is_encoder_decoder or len(found) != 1:  # unless the part that owns it was passed
        found = [path for path, _, _ in lists if "." not in path]
    if text.model_type == "xlnet":  # no shape tells this where batch and seq are equal
        raise ValueError(NO_STREAM.format("its layers work on (seq, batch, hidden)"))
    if len(found) != 1:
        seen = ", ".join(f"{path} ({len(layers)})" for path, layers, _ in lists) or "none"
        raise ValueError(
            f"{type(model).__name__} has no single list of decoder layers to tell from its "
            f"configuration. Lists of modules in it, with their lengths: {seen}. If one of them "
            "is the list, pass the part that owns it, such as model.model.decoder"
        )
    return found[0]


@contextmanager
def hooked_layers(
    model: nn.Module,
    functions: dict[int, Callable[[int, Tensor], Tensor | None]],
    note: Callable | None = None,
    start: Callable | None = None,
    end: Callable | None = None,
) -> Iterator[None]:
    """Call `functions[number](number, hidden)` at each of these layers while the block runs.

    A tensor of shape (batch, seq, hidden) that the function returns takes the place of `hidden`;
    None changes nothing. `start` and `end` are hooks before and after the part of the model that
    owns the layers, `note` one before each part from the model down to that one.

    Raises ValueError inside the forward pass where the stream has another shape.
    """
    model, handles = unwrapped(model), []
    *parts, name = _find(model).split(".")
    owners = [model]
    for part in parts:
        owners.append(getattr(owners[-1], part))
    decoder_layers = getattr(owners[-1], name)
    width = getattr(model.config.get_text_config(decoder=True), "hidden_size", None)
    try:
        if note is not None:
            handles += [o.register_forward_pre_hook(note, with_kwargs=True) for o in owners]
            handles.append(owners[-1].register_forward_pre_hook(start, with_kwargs=True))
            handles.append(owners[-1].register_forward_hook(end, with_kwargs=True))
        for number, function in functions.items():
            handles.append(_hook_layer(decoder_layers, number, function, width))
        with _uncompiled():
            yield
    finally:
        for handle in handles:
            handle.remove()


def _hook_layer(
    decoder_layers: nn.ModuleList, number: int, function: Callable, width: int | None
) -> object:
    """A tensor that the function returns takes the place of `hidden`; None changes nothing."""

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
        return decoder_layers[0].register_forward_pre_hook(before, with_kwargs=True)
    return decoder_layers[number - 1].register_forward_hook(after)


def _checked(number: int, hidden: object, width: int | None) -> Tensor:
    if (
        isinstance(hidden, Tensor)
        and hidden.dim() == 3
        and hidden.shape[2] == (width or hidden.shape[2])
    ):
        return hidden
    given = f"shape {tuple(hidden.shape)}" if isinstance(hidden, Tensor) else type(hidden).__name__
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
