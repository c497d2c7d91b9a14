"""Read the activations inside a causal language model. By hand: lesson 04.

Layer numbers are the same everywhere in this project: layer i is the residual stream after
i decoder layers. Layer 0 is the embedding output, layer n is the output of the last of n
decoder layers, before the final norm. Negative numbers count from the end, as in a list.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def find_decoder_layers(model: nn.Module) -> nn.ModuleList:
    """Return the list of decoder layers of a causal language model, first layer first.

    The list is found by structure: it is the `ModuleList` with as many entries as the
    model's text configuration has layers, in the part of the model that this configuration
    describes. Raises ValueError when there is no such list, or more than one.
    """
    return _find(model)[1]


def _find(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """The dotted name of the list of decoder layers, and the list."""
    config = getattr(model, "config", None)
    if config is None:
        raise ValueError(
            f"{type(model).__name__} has no configuration, so its number of layers is not known: "
            "pass a model that AutoModelForCausalLM.from_pretrained gave"
        )
    text = config.get_text_config(decoder=True)
    count = getattr(text, "num_hidden_layers", None)
    modules = dict(model.named_modules())
    lists = {name: m for name, m in modules.items() if isinstance(m, nn.ModuleList) and len(m)}

    def is_text(name: str) -> bool:
        """True if the nearest part around this list that has a configuration is the text part."""
        while name:
            name = name.rpartition(".")[0]
            own = getattr(modules[name], "config", None)
            if hasattr(own, "get_text_config"):
                return type(own.get_text_config(decoder=True)) is type(text)
        return True

    found = {name: m for name, m in lists.items() if len(m) == count and is_text(name)}
    # A list inside one of the layers (its experts, say) is not a list of layers.
    found = {n: m for n, m in found.items() if not any(n.startswith(o + ".") for o in found)}
    if len(found) > 1:  # lists of norms or projections, one for each layer, are far smaller
        size = {name: sum(p.numel() for p in m.parameters()) for name, m in found.items()}
        found = {max(size, key=size.get): found[max(size, key=size.get)]}
    if not found:
        seen = ", ".join(f"{name} ({len(m)})" for name, m in lists.items()) or "none"
        raise ValueError(
            f"{type(model).__name__} has no list of {count} decoder layers, which its "
            f"configuration asks for; lists found: {seen}"
        )
    return next(iter(found.items()))


@contextmanager
def record_activations(
    model: nn.Module, layers: int | slice | Iterable[int] | None = None
) -> Iterator[Activations]:
    """Record the residual stream while the model runs inside the `with` block.

    Gives a mapping from layer number to a tensor of shape (batch, seq, hidden), on the model's
    device, cut from the autograd graph. `layers` is a number, a list, a range or a slice;
    None means all, 0 to n. Nothing is copied: the tensors are those that the model made.

        with record_activations(model, layers=[0, -1]) as activations:
            model(**inputs)
        activations[0].shape

    A pass that goes on with the KV cache of the pass before is appended along seq, so that
    `generate` gives (batch, all tokens, hidden). Any other pass replaces what was recorded.

    Raises ValueError for a layer that is not in the model, before any hook is registered.
    By hand: lesson 04.
    """
    name, decoder_layers = _find(model)
    numbers = _layer_numbers(layers, len(decoder_layers))
    activations = Activations(numbers, len(decoder_layers))
    owner = model.get_submodule(name.rpartition(".")[0])
    handles = []
    try:
        handles += [
            owner.register_forward_pre_hook(activations._start, with_kwargs=True),
            owner.register_forward_hook(activations._end, with_kwargs=True, always_call=True),
        ]
        for number in numbers:
            handles.append(_hook_layer(decoder_layers, number, activations._add))
        yield activations
    finally:
        for handle in handles:
            handle.remove()


class Activations(Mapping):
    """What `record_activations` recorded: {layer number: tensor (batch, seq, hidden)}."""

    def __init__(self, numbers: list[int], last: int):
        self._numbers, self._last = numbers, last
        self._parts: dict[int, list[Tensor]] = {}  # one tensor for each pass, joined when read
        self._running = False
        self._first = self._tokens = 0  # place of the first recorded token, tokens recorded
        self._cache: list[weakref.ref] = []  # what the last pass kept its cache in

    def __getitem__(self, number: int) -> Tensor:
        known = number + self._last + 1 if isinstance(number, int) and number < 0 else number
        if known not in self._numbers:
            raise KeyError(f"layer {number} was not recorded; recorded layers: {self._numbers}")
        if known not in self._parts:
            raise KeyError(
                f"layer {number} is not there yet: run the model inside the `with` block, "
                "and read the activations after that"
            )
        if len(self._parts[known]) > 1:
            self._parts[known] = [torch.cat(self._parts[known], dim=1)]
        return self._parts[known][0]

    def __iter__(self) -> Iterator[int]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    def __repr__(self) -> str:
        shapes = {n: tuple(self[n].shape) if n in self._parts else None for n in self._numbers}
        return f"Activations({shapes})"

    # -- called by the hooks ---------------------------------------------------------------

    def _start(self, owner: nn.Module, args: tuple, kwargs: dict) -> None:
        """A forward pass begins: does it go on where the last one stopped?"""
        given = [v for v in (*args, *kwargs.values()) if not isinstance(v, Tensor)]
        known = {id(ref()) for ref in self._cache if ref() is not None}
        cache = next((v for v in given if id(_handle(v)) in known), None)
        keep = _cache_length(cache, self._first + self._tokens) - self._first
        if cache is None or keep <= 0 or keep > self._tokens:
            new = next((v for v in given if _is_cache(v)), None)
            self._parts, self._tokens, self._first = {}, 0, _cache_length(new, 0)
        elif keep < self._tokens:  # the cache was cropped: those tokens did not happen
            self._parts = {n: [self[n][:, :keep].clone()] for n in self._parts}
            self._tokens = keep
        self._running, self._new = True, 0

    def _end(self, owner: nn.Module, args: tuple, kwargs: dict, output: object) -> None:
        self._running = False
        self._tokens += self._new
        values = output.values() if isinstance(output, Mapping) else output
        left = (
            [v for v in values if not isinstance(v, Tensor)]
            if not isinstance(values, (Tensor, type(None)))
            else []
        )
        left += [v for v in (*args, *kwargs.values()) if _is_cache(v)]
        handles = (_handle(v) for v in left)
        self._cache = [weakref.ref(h) for h in handles if h is not None]

    def _add(self, number: int, hidden: Tensor) -> None:
        # Gradient checkpointing runs a layer again in the backward pass, outside the forward.
        if self._running:
            self._new = hidden.shape[1]
            self._parts.setdefault(number, []).append(hidden.detach())


def _is_cache(value: object) -> bool:
    return hasattr(value, "get_seq_length")


def _cache_length(cache: object, otherwise: int) -> int:
    """Number of tokens in a KV cache; `otherwise` where the cache cannot tell (state spaces)."""
    try:
        return int(cache.get_seq_length())
    except (AttributeError, ValueError):
        return otherwise


def _handle(value: object) -> object:
    """Something that identifies a cache and can be held weakly: itself, or its first tensor."""
    while isinstance(value, (list, tuple)) and value:
        value = value[0]
    if value is None or isinstance(value, (bool, int, float, str, list, tuple, dict)):
        return None
    return value


def _layer_numbers(layers: int | slice | Iterable[int] | None, last: int) -> list[int]:
    """Layer numbers from 0 to `last`, in the order given, each once; ValueError if not there."""
    every = range(last + 1)
    if layers is None or isinstance(layers, slice):
        numbers = list(every if layers is None else every[layers])
    else:
        numbers = []
        for number in [layers] if isinstance(layers, int) else layers:
            if isinstance(number, bool) or not isinstance(number, int):
                raise ValueError(
                    f"a layer is a whole number from 0 to {last}, but {number!r} was given"
                )
            if number not in range(-last - 1, last + 1):
                raise ValueError(f"layer {number} is not in this model: it has layers 0 to {last}")
            numbers.append(every[number])
    if not numbers:
        raise ValueError(f"no layer was asked for ({layers!r}); this model has 0 to {last}")
    return list(dict.fromkeys(numbers))


def _hook_layer(decoder_layers: nn.ModuleList, number: int, function) -> object:
    """Call `function(number, hidden)` when layer `number` is there; give back the hook's handle.

    A tensor that the function returns takes the place of `hidden`; None changes nothing.
    """
    # Layer 0 is what goes into the first decoder layer, layer i is what comes out of the ith.
    if number == 0:

        def before(module: nn.Module, args: tuple, kwargs: dict):
            key = None if args else _hidden_keyword(kwargs)
            new = function(0, _checked(0, args[0] if args else kwargs[key]))
            if new is not None:
                return ((new, *args[1:]), kwargs) if args else (args, {**kwargs, key: new})

        return decoder_layers[0].register_forward_pre_hook(before, with_kwargs=True)

    def after(module: nn.Module, args: tuple, output: object):
        # Llama's layers return a tensor, GPT-J's a tuple that begins with it.
        is_tuple = isinstance(output, tuple)
        new = function(number, _checked(number, output[0] if is_tuple else output))
        if new is not None:
            return (new, *output[1:]) if is_tuple else new

    return decoder_layers[number - 1].register_forward_hook(after)


def _hidden_keyword(kwargs: dict) -> str:
    """The keyword under which a layer was given the residual stream."""
    if "hidden_states" in kwargs:
        return "hidden_states"
    return next(k for k, v in kwargs.items() if isinstance(v, Tensor) and v.is_floating_point())


def _checked(number: int, hidden: object) -> Tensor:
    if isinstance(hidden, Tensor) and hidden.dim() == 3:
        return hidden
    what = f"shape {tuple(hidden.shape)}" if isinstance(hidden, Tensor) else type(hidden).__name__
    raise ValueError(
        f"layer {number} of this model gives no tensor of shape (batch, seq, hidden), but {what}: "
        "its residual stream cannot be recorded"
    )
