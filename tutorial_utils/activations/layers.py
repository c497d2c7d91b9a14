"""Find the decoder layers of a causal language model, by structure and not by name."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from torch import nn


def layer_numbers(layers: int | slice | Iterable[int] | None, last: int) -> list[int]:
    """Turn what the caller asked for into layer numbers from 0 to `last`, without repeats.

    The order stays as it was given. Raises ValueError for a layer that the model does not have.
    """
    every = range(last + 1)
    if layers is None:
        layers = every
    elif isinstance(layers, slice):
        layers = every[layers]
    numbers = []
    for given in layers if isinstance(layers, Iterable) else [layers]:
        if isinstance(given, bool) or not hasattr(given, "__index__"):
            raise ValueError(f"a layer is a whole number from 0 to {last}, but {given!r} was given")
        if not -last - 1 <= given <= last:
            raise ValueError(f"layer {given} is not in this model: it has layers 0 to {last}")
        numbers.append(every[given])
    if not numbers:
        raise ValueError(f"no layer was asked for; this model has layers 0 to {last}")
    return list(dict.fromkeys(numbers))


NO_STREAM = (
    "this model has no single residual stream of shape (batch, seq, hidden): {}. Its activations "
    "cannot be named by a layer number; use hooks of your own, as in the lesson on hooks"
)


class DecoderLayers(NamedTuple):
    """Where the decoder layers of a model are."""

    layers: nn.ModuleList
    owners: list[nn.Module]  # from the whole model down to the module that holds the list
    width: int | None  # the hidden size, or None if the configuration does not say


# By model: the path to its list of decoder layers, the list's length, the width, the configuration.
_found: weakref.WeakKeyDictionary[nn.Module, tuple] = weakref.WeakKeyDictionary()


def find_decoder_layers(model: nn.Module) -> nn.ModuleList:
    """Return the list of decoder layers of a causal language model, first layer first.

    The list is found by structure: it is the `ModuleList` with as many entries as the model's
    text configuration has layers, in the part of the model that this configuration describes.
    If that does not work, pass the part of the model that owns the list.

    Raises ValueError if no list fits or more than one does; the message names the lists that were
    found. Raises ValueError too for a model without a residual stream (batch, seq, hidden).
    """
    return locate(model).layers


def locate(model: nn.Module) -> DecoderLayers:
    """Find the decoder layers, as `find_decoder_layers` does, and the modules that hold them.

    The search is slow, so the path that it found is remembered. The path is used again as long as
    a list of the same length is there and the model has the same configuration.
    """
    # `torch.compile` wraps the model in another module.
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
            "is not known: pass a model that AutoModelForCausalLM.from_pretrained returned"
        )
    text = config.get_text_config(decoder=True)
    if text.model_type == "xlnet":  # shapes would not show it if batch and seq are equal
        raise ValueError(NO_STREAM.format("its layers work on (seq, batch, hidden)"))
    # LongCat counts each entry of its list as two layers: there the length is num_layers.
    lengths = {getattr(text, "num_hidden_layers", None), getattr(text, "num_layers", None)}
    lists = list(_outer_lists([model], "", config))
    found = [
        (path, layers, owners)
        for path, layers, owners, described_by in lists
        if len(layers) in lengths
        and next(layers[0].children(), None)  # not a list of norms or projections
        and (
            described_by is text
            or isinstance(described_by.get_text_config(decoder=True), type(text))
        )
    ]
    if config.is_encoder_decoder or len(found) != 1:
        # The configuration does not decide. But perhaps the caller passed the owner of the list.
        found = [(path, layers, owners) for path, layers, owners, _ in lists if owners == [model]]
    if len(found) != 1:
        seen = ", ".join(f"{path} ({len(layers)})" for path, layers, *_ in lists) or "none"
        raise ValueError(
            f"the configuration of {type(model).__name__} does not tell which list holds its "
            f"decoder layers. Lists of modules in it, with their lengths: {seen}. If one of them "
            "is the right one, pass the part that owns it, such as model.model.decoder"
        )
    path, layers, owners = found[0]
    return DecoderLayers(layers, owners, getattr(text, "hidden_size", None)), path


def _outer_lists(owners: list[nn.Module], path: str, config: object) -> Iterator[tuple]:
    """Yield (path, list, owners, configuration) for each list of modules not inside another list.

    The configuration is that of the nearest module around the list that has one.
    """
    own = getattr(owners[-1], "config", None)
    config = own if hasattr(own, "get_text_config") else config
    for name, child in owners[-1].named_children():
        if isinstance(child, nn.ModuleList):
            yield path + name, child, owners, config
        else:
            yield from _outer_lists([*owners, child], f"{path}{name}.", config)
