"""Read and edit the activations inside a causal language model. By hand: lesson 04.

Layer numbers are the same everywhere in this project: layer i is the residual stream after
i decoder layers. Layer 0 is the embedding output, layer n is the output of the last of n
decoder layers, before the final norm. Negative numbers count from the end, as in a list.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cache

import torch
from torch import Tensor, nn

from .layer_hooks import NO_STREAM, find_decoder_layers, hooked_layers, locate

__all__ = [
    "Activations",
    "edit_activations",
    "find_decoder_layers",
    "read_activations",
    "record_activations",
]


@contextmanager
def record_activations(
    model: nn.Module,
    layers: int | slice | Iterable[int] | None = None,
    *,
    positions: str | int | Iterable[int] | None = None,
    to: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    detach: bool = True,
    stop: bool = False,
) -> Iterator[Activations]:
    """Record the residual stream while the model runs inside the `with` block.

        with record_activations(model, layers=[0, -1]) as activations:
            model(**inputs)
        activations[0].shape  # (batch, seq, hidden)

    layers: a number, a list, a range or a slice; None means all, 0 to n.
    positions: None keeps every token, and then nothing is copied; a list of column numbers keeps
        those; "last" keeps the last real token of each row by the attention mask, with padding
        on either side. The result is a copy of shape (batch, positions, hidden).
    to: a device to copy to, such as "cpu"; by default the tensors stay where they were made.
    dtype: the data type to keep them in; by default the model's.
    detach: False leaves the tensors in the autograd graph.
    stop: compute nothing after the last layer asked for. The model's call then has no result: the
        block ends there, and what follows the call inside the block is not run.

    A pass that is given the KV cache which the pass before left is appended along seq, so that
    `generate` gives (batch, all tokens, hidden); its last token is chosen but never read. Any
    other pass replaces what was recorded. Beam search is refused, as it moves rows around.

    Recorders and editors can be nested. At one layer they act in the order in which their blocks
    were entered: a recorder inside `edit_activations` sees the edited stream. Inside the block
    a model from `torch.compile` runs uncompiled (torch 2.6 or newer).

    Raises ValueError for a layer that is not there, before any hook is registered.
    By hand: lesson 04.
    """
    where = locate(model)
    numbers = _layer_numbers(layers, len(where.layers))
    activations = Activations(
        numbers,
        outermost=id(where.owners[0]),
        last=len(where.layers),
        positions=_checked_positions(positions),
        to=to,
        dtype=dtype,
        detach=detach,
        stop_at=max(numbers) if stop else None,
    )
    around = activations._note, activations._start, activations._end
    try:
        with hooked_layers(where, dict.fromkeys(numbers, activations._add), *around):
            yield activations
    except _Stop as reached:
        if reached.args[0] is not activations:
            raise
    finally:
        activations._finish_copies()


def read_activations(
    model: nn.Module,
    input_ids: Tensor,
    *,
    layers: int | slice | Iterable[int] | None = None,
    positions: str | int | Iterable[int] | None = None,
    to: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    **inputs: object,
) -> Activations:
    """Run the model on `input_ids` (batch, seq) up to the last layer asked for, and record.

    For when the logits are not needed: no head, no KV cache, no gradients. `inputs` is what else
    the model takes, such as `attention_mask`; the rest is as in `record_activations`.
    """
    if not isinstance(input_ids, Tensor):
        raise ValueError(
            f"input_ids is a tensor of shape (batch, seq), not {type(input_ids).__name__}: what a "
            "tokenizer returns is passed as read_activations(model, **inputs)"
        )
    inputs = {"use_cache": False, **inputs, "input_ids": input_ids}
    options = {"positions": positions, "to": to, "dtype": dtype, "stop": True}
    with torch.no_grad(), record_activations(model, layers, **options) as activations:
        model(**inputs)
    return activations


@contextmanager
def edit_activations(
    model: nn.Module, edits: Mapping[int, Callable[[Tensor], Tensor]]
) -> Iterator[None]:
    """Change the residual stream while the model runs inside the `with` block.

        with edit_activations(model, {3: lambda hidden: hidden + direction}):
            model(**inputs)

    `edits` gives a function for each layer to change: it takes the stream of one forward pass,
    (batch, seq, hidden), and returns it changed, of the same shape, dtype and device. With a
    KV cache a pass holds the new tokens only. Nesting is told in `record_activations`.

    Raises ValueError for a layer that is not there, and for a result of another kind.
    """
    where = locate(model)
    numbers = _layer_numbers(edits, len(where.layers))
    if not isinstance(edits, Mapping) or not all(callable(edit) for edit in edits.values()):
        raise ValueError(f"edits are given as {{layer number: function}}, not as {edits!r}")
    if len(numbers) < len(edits):
        raise ValueError(f"two of these layers are the same one: {list(edits)}")
    functions = dict(zip(numbers, edits.values()))

    def edit(number: int, hidden: Tensor) -> Tensor:
        new = functions[number](hidden)
        given, wanted = (
            f"{tuple(t.shape)}, {t.dtype}, {t.device}" if isinstance(t, Tensor) else repr(t)
            for t in (new, hidden)
        )
        if given != wanted:
            raise ValueError(f"the edit of layer {number} returned {given} instead of {wanted}")
        return new

    with hooked_layers(where, dict.fromkeys(numbers, edit)):
        yield


class Activations(Mapping):
    """What was recorded: {layer number: tensor (batch, seq, hidden)}."""

    def __init__(self, numbers, outermost, last, positions, to, dtype, detach, stop_at):
        self._numbers, self._outermost = numbers, outermost
        self._last, self._stop_at = last, stop_at
        self._positions, self._to, self._dtype, self._detach = positions, to, dtype, detach
        # One tensor for each pass, joined when read; None where a pass left the layer out.
        self._parts: dict[int, list[Tensor | None]] = {number: [] for number in numbers}
        self._changed: set[int] = set()  # layers that something changed in place
        self._first = self._tokens = 0  # place of the first token recorded, how many there are
        self._left: list[tuple] = []  # the caches that the last pass left
        self._copying: set[torch.device] = set()
        self._new: dict[int, tuple[Tensor, int]] | None = None  # this pass; None between passes
        self._seq = self._mask = None  # tokens and mask of this pass, where its inputs tell
        self._columns: Tensor | None = None  # what is kept of this pass

    def __getitem__(self, layer: int) -> Tensor:
        try:
            number = range(self._last + 1)[layer]
        except (IndexError, TypeError):
            number = None
        if number not in self._parts:
            raise KeyError(f"layer {layer} was not recorded; recorded layers: {self._numbers}")
        parts = self._parts[number]
        if not parts:
            raise KeyError(
                f"layer {layer} is not there yet: run the model inside the `with` block, "
                "and read the activations after that"
            )
        if any(part is None for part in parts):
            raise KeyError(f"layer {layer} is not there: the model left this decoder layer out")
        if number in self._changed:
            raise ValueError(
                f"layer {layer} was changed in place after it was recorded, by a later hook or by "
                "the model itself: record a copy, with to=model.device"
            )
        self._finish_copies()
        if len(parts) > 1:
            parts[:] = [torch.cat(parts, dim=1)]
        return parts[0]

    def __iter__(self) -> Iterator[int]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    def __repr__(self) -> str:
        shapes = {n: [tuple(p.shape) for p in ps if p is not None] for n, ps in self._parts.items()}
        return f"Activations({shapes})"

    # What follows is called by the hooks, in this order in each forward pass.

    def _note(self, part: nn.Module, args: tuple, kwargs: dict) -> None:
        """See what the model, and each part down to the owner of the layers, is given."""
        if id(part) == self._outermost:  # a pass that broke off leaves nothing behind
            self._seq = self._mask = None
        given = {**dict(zip(_parameters(type(part)), args)), **kwargs} if args else kwargs
        for name in ("input_ids", "inputs_embeds"):
            if isinstance(given.get(name), Tensor) and given[name].dim() > 1:
                self._seq = given[name].shape[1]
        mask = given.get("attention_mask")
        # Inner parts may get the mask in a form of their own; the plain one is (batch, seq).
        if self._mask is None or (isinstance(mask, Tensor) and mask.dim() == 2):
            self._mask = mask

    def _start(self, owner: nn.Module, args: tuple, kwargs: dict) -> None:
        """A pass through the layers begins: does it go on where the last one stopped?"""
        self._new, self._columns = {}, None
        if self._positions is not None and self._seq is not None:
            self._columns = self._pick(self._seq)
        known = [(left(), state()) for left, state in self._left if left() is not None]
        first = 0
        for value in (*args, *kwargs.values()):
            for left, state in known:
                if left is _identity(value):
                    kept = _cache_length(value, self._first + self._tokens) - self._first
                    if 0 < kept <= self._tokens:
                        return self._go_on(kept, state is _state(value))
            if _is_cache(value):
                first = _cache_length(value, 0)
        self._parts = {number: [] for number in self._numbers}
        self._changed.clear()
        self._first, self._tokens = first, 0

    def _go_on(self, kept: int, same_state: bool) -> None:
        """Make ready to append to the first `kept` tokens of what was recorded."""
        if kept == self._tokens and not same_state:
            raise ValueError(
                "the rows of the KV cache were moved between two forward passes, as in beam "
                "search, so the record would mix rows. Generate first, then record one pass "
                "over the sequences that came out"
            )
        if isinstance(self._positions, list) or (self._positions and kept < self._tokens):
            raise ValueError(
                f"positions={self._positions!r} counts within one forward pass, and this pass "
                "continues another: record all positions"
            )
        if kept < self._tokens:  # the cache was cropped: those tokens did not happen
            self._parts = {n: [self[n][:, :kept].clone()] for n in self._numbers}
            self._tokens = kept

    def _add(self, number: int, hidden: Tensor) -> None:
        # Gradient checkpointing runs a layer again in the backward pass: not recorded twice.
        if self._new is None:
            return
        if number in self._new:
            raise ValueError(NO_STREAM.format(f"layer {number} ran twice in one forward pass"))
        self._seq = self._seq or hidden.shape[1]
        if hidden.shape[1] != self._seq:
            shape = f"layer {number} has shape {tuple(hidden.shape)} for {self._seq} tokens"
            raise ValueError(NO_STREAM.format(shape))
        # A tensor made under inference_mode can never train a probe: keep a normal one.
        with torch.inference_mode(False) if hidden.is_inference() else nullcontext():
            kept = self._kept(hidden.detach() if self._detach else hidden)
            if kept.is_inference() or kept.untyped_storage().nbytes() > kept.nbytes:
                kept = kept.clone()  # a view would keep alive all that it looks into
        self._new[number] = kept, kept._version
        if number == self._stop_at:
            self._end(None, (), {}, None)
            raise _Stop(self)

    def _kept(self, hidden: Tensor) -> Tensor:
        """The chosen positions, of the type and in the place asked for."""
        if self._positions is not None:
            columns = self._pick(self._seq) if self._columns is None else self._columns
            self._columns = columns.to(hidden.device)  # once, as moving it waits for the GPU
            rows = torch.arange(len(hidden), device=hidden.device)[:, None]
            hidden = hidden[rows, self._columns]
        if self._dtype is not None:
            hidden = hidden.to(self._dtype)
        if self._to is None:
            return hidden
        if hidden.is_cuda and torch.device(self._to).type == "cpu":
            # Into pinned memory the GPU copies while the CPU goes on; reading waits for it.
            self._copying.add(hidden.device)
            pinned = torch.empty(hidden.shape, dtype=hidden.dtype, pin_memory=True)
            return pinned.copy_(hidden, non_blocking=True)
        return hidden.to(self._to, copy=True)

    def _pick(self, seq: int) -> Tensor:
        """The columns to keep of `seq`: (batch or 1, positions)."""
        if self._positions != "last":
            wrong = [p for p in self._positions if not -seq <= p < seq]
            if wrong:
                raise ValueError(
                    f"position {wrong[0]} is not in this input: it has positions 0 to {seq - 1}"
                )
            return torch.tensor([self._positions])
        if self._mask is None:
            return torch.tensor([[seq - 1]])
        if not isinstance(self._mask, Tensor) or self._mask.dim() != 2:
            raise ValueError('positions="last" needs an attention mask of shape (batch, seq)')
        mask = self._mask[:, -seq:] != 0  # with a cache the mask covers the earlier tokens too
        if not mask.any(dim=1).all():
            raise ValueError('positions="last": a row of this input has no real token')
        return seq - 1 - mask.flip(1).int().argmax(dim=1, keepdim=True)

    def _end(self, owner: nn.Module | None, args: tuple, kwargs: dict, output: object) -> None:
        """A pass is complete: only now does what it recorded count."""
        for number, parts in self._parts.items():
            kept, version = self._new.get(number, (None, 0))
            parts.append(kept)
            if kept is not None and kept._version != version:
                self._changed.add(number)
        self._tokens += self._seq or 0
        values = output.values() if isinstance(output, Mapping) else output
        left = [*values] if isinstance(values, Iterable) and not isinstance(values, Tensor) else []
        left += [value for value in (*args, *kwargs.values()) if _is_cache(value)]
        pairs = [(_identity(value), _state(value)) for value in left]
        self._left = [
            (weakref.ref(known), weakref.ref(state))
            for known, state in pairs
            if known is not None and state is not None
        ]
        self._new = self._seq = self._mask = None

    def _finish_copies(self) -> None:
        while self._copying:
            torch.cuda.synchronize(self._copying.pop())


class _Stop(Exception):
    """Raised to leave the forward pass; its argument is the recorder that has all it wants."""


def _layer_numbers(layers: int | slice | Iterable[int] | None, last: int) -> list[int]:
    """Layer numbers from 0 to `last`, in the order given, each once; ValueError if not there."""
    every = range(last + 1)
    if layers is None or isinstance(layers, slice):
        layers = every[layers or slice(None)]
    elif not isinstance(layers, Iterable):
        layers = [layers]
    numbers = []
    for number in layers:
        if isinstance(number, bool) or not hasattr(number, "__index__"):
            raise ValueError(
                f"a layer is a whole number from 0 to {last}, but {number!r} was given"
            )
        if not -last - 1 <= number <= last:
            raise ValueError(f"layer {number} is not in this model: it has layers 0 to {last}")
        numbers.append(every[number])
    if not numbers:
        raise ValueError(f"no layer was asked for; this model has layers 0 to {last}")
    return list(dict.fromkeys(numbers))


def _checked_positions(positions: object) -> str | list[int] | None:
    if positions is None or isinstance(positions, str) and positions == "last":
        return positions
    numbers = list(positions) if isinstance(positions, Iterable) else [positions]
    if numbers and all(hasattr(n, "__index__") and not isinstance(n, bool) for n in numbers):
        return [int(n) for n in numbers]
    raise ValueError(
        f'positions are None for all, "last", or a list of column numbers, not {positions!r}'
    )


@cache
def _parameters(module_type: type) -> tuple[str, ...]:
    """The names of what a module's `forward` takes, in order."""
    return tuple(inspect.signature(module_type.forward).parameters)[1:]


def _is_cache(value: object) -> bool:
    return hasattr(value, "get_seq_length")


def _cache_length(cache: object, otherwise: int) -> int:
    """Number of tokens in a KV cache; `otherwise` where it cannot tell, as with state spaces."""
    try:
        return int(cache.get_seq_length()) if _is_cache(cache) else otherwise
    except ValueError:
        return otherwise


def _identity(value: object) -> object:
    """What tells one cache from another: itself, or the first tensor of a list of tensors."""
    if isinstance(value, Tensor):
        return None
    if isinstance(value, (list, tuple)):
        return _state(value)
    return value if hasattr(value, "__dict__") else None


def _state(value: object, depth: int = 4) -> Tensor | None:
    """The first tensor in a cache that has a row for each row of the batch."""
    if isinstance(value, Tensor):
        return value if value.dim() > 2 else None
    if not isinstance(value, (list, tuple)):
        value = (value if isinstance(value, dict) else getattr(value, "__dict__", {})).values()
    parts = (_state(part, depth - 1) for part in value) if depth else ()
    return next((tensor for tensor in parts if tensor is not None), None)
