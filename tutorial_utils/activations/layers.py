"""Find the decoder layers of a causal language model, by structure and not by name."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from torch import nn


def layer_numbers(layers: int | slice | Iterable[int] | None, last: int) -> list[int]:
    """Layer numbers from 0 to `last`, in the order given, each once; ValueError if not there."""
    every = range(last + 1)
    asked = slice(None) if layers is None else layers
    if isinstance(asked, slice):
        asked = every[asked]
    numbers = []
    for given in asked if isinstance(asked, Iterable) else [asked]:
        if isinstance(given, bool) or not hasattr(given, "__index__"):
            raise ValueError(f"a layer is a whole number from 0 to {last}, but {given!r} was given")
        if not -last - 1 <= given <= last:
            raise ValueError(f"layer {given} is not in this model: it has layers 0 to {last}")
        numbers.append(every[given])
    if not numbers:
        raise ValueError(f"no layer was asked for; this model has layers 0 to {last}")
    return list(dict.fromkeys(numbers))


NO_STREAM = (
    "this model has no single residual stream of shape (batch, seq, hidden): {}. What it computes "
    "cannot be told by layer number; use hooks of your own, as in the lesson on hooks"
)


class DecoderLayers(NamedTuple):
    """Where the decoder layers of a model are."""

    layers: nn.ModuleList
    owners: list[nn.Module]  # the parts around them, from the model to the one that runs them
    width: int | None  # hidden size, where the text configuration tells


# By model: the path to its list of decoder layers, the list's length, the width, the configuration.
_found: weakref.WeakKeyDictionary[nn.Module, tuple] = weakref.WeakKeyDictionary()


def find_decoder_layers(model: nn.Module) -> nn.ModuleList:
    """Return the list of decoder layers of a causal language model, first layer first.

    The list is found by structure: it is the `ModuleList` with as many entries as the model's
    text configuration has layers, in the part of the model that this configuration describes.
    Where that does not work, pass the part of the model that owns the list.

    Raises ValueError, naming the lists that were found, when not exactly one of them fits, and for
    a model without a residual stream of shape (batch, seq, hidden).
    """
    return locate(model).layers


def locate(model: nn.Module) -> DecoderLayers:
    """Find the decoder layers, as `find_decoder_layers`, and the parts of the model around them.

    A search takes a while: its path is remembered, and walked while it leads to such a list.
    """
    # `torch.compile` wraps a model in another.
    model = getattr(model, "_modules", {}).get("_orig_mod", model)
    if isinstance(model, nn.Module) and model in _found:
        path, length, width, config = _found[model]
        parts: list[Any] = [model]
        for name in path.split("."):
            parts.append(getattr(parts[-1], "_modules", {}).get(name))
        *owners, layers = parts
        fits = isinstance(layers, nn.ModuleList) and len(layers) == length
        if fits and model.config is config:
            return DecoderLayers(layers, owners, width)
    where, path = _search(model)
    _found[model] = path, len(where.layers), where.width, model.config
    return where


def _search(model: nn.Module) -> tuple[DecoderLayers, str]:
    """The decoder layers, and the path from the model to their list."""
    config: Any = getattr(model, "config", None)
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
        (path, layers, owners)
        for path, layers, owners, own in lists
        if len(layers) in lengths
        and next(layers[0].children(), None)  # not a list of norms or projections
        and (own is text or isinstance(own.get_text_config(decoder=True), type(text)))
    ]
    if config.is_encoder_decoder or len(found) != 1:  # only if the part that owns it was passed
        found = [entry[:3] for entry in lists if entry[2] == [model]]
    if len(found) != 1:
        seen = ", ".join(f"{path} ({len(layers)})" for path, layers, *_ in lists) or "none"
        raise ValueError(
            f"{type(model).__name__} has no single list of decoder layers to tell from its "
            f"configuration. Lists of modules in it, with their lengths: {seen}. If one of them "
            "is the list, pass the part that owns it, such as model.model.decoder"
        )
    path, layers, owners = found[0]
    return DecoderLayers(layers, owners, getattr(text, "hidden_size", None)), path


def _lists(owners: list[nn.Module], path: str, config: object) -> Iterator[tuple]:
    """Each list of modules that is in no other: path, list, owners, configuration around it."""
    own = getattr(owners[-1], "config", None)
    config = own if hasattr(own, "get_text_config") else config
    for name, child in owners[-1].named_children():
        if isinstance(child, nn.ModuleList):
            yield path + name, child, owners, config
        else:
            yield from _lists([*owners, child], f"{path}{name}.", config)
