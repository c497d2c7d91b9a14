"""What `record_activations` gives: tensors by layer number, gathered over forward passes.

The first half of the class is for reading, the second half is called by the hooks.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from functools import cache

import torch
from torch import Tensor, nn

from tutorial_utils.activations.hooks import check_stream
from tutorial_utils.activations.kv_cache import (
    cache_candidates,
    cache_identity,
    cache_length,
    cache_state,
    is_cache,
)
from tutorial_utils.activations.layers import NO_STREAM


class Activations(Mapping):
    """What was recorded: {layer number: tensor (batch, seq, hidden)}."""

    def __init__(self, numbers, outermost, last, width, positions, to, dtype, detach, stop_at):
        self._numbers, self._outermost, self._width = numbers, outermost, width
        self._last, self._stop_at = last, stop_at
        self._positions, self._to, self._dtype, self._detach = positions, to, dtype, detach
        # One tensor for each pass, joined when read; None where a pass left the layer out.
        self._parts: dict[int, list[Tensor | None]] = {number: [] for number in numbers}
        self._changed: set[int] = set()  # layers that something changed in place
        self._first = self._tokens = 0  # place of the first token recorded, how many there are
        self._left: list[tuple] = []  # the caches that the last pass left
        self._copying: dict[torch.device, torch.cuda.Stream] = {}
        self._new: dict[int, tuple[Tensor, int]] | None = None  # this pass; None between passes
        self._seq = self._mask = None  # tokens and mask of this pass, where its inputs tell
        self._shape: torch.Size | None = None  # of the last layer seen in this pass
        self._columns: Tensor | slice | None = None  # what is kept of this pass
        self._given: list = []  # of what this pass was given, what may be a cache
        self._as_it_is = positions is None and to is None and dtype is None

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
        given = {**dict(zip(parameters(type(part)), args)), **kwargs} if args else kwargs
        for name in ("input_ids", "inputs_embeds"):
            tensor = given.get(name)
            if isinstance(tensor, Tensor) and tensor.dim() > 1:
                self._seq = tensor.shape[1]
        mask = given.get("attention_mask")
        # Inner parts may get the mask in a form of their own; the plain one is (batch, seq).
        if self._mask is None or (isinstance(mask, Tensor) and mask.dim() == 2):
            self._mask = mask

    def _start(self, owner: nn.Module, args: tuple, kwargs: dict) -> None:
        """A pass through the layers begins: does it go on where the last one stopped?"""
        self._note(owner, args, kwargs)
        self._new, self._columns, self._shape = {}, None, None
        if self._positions is not None and self._seq is not None:
            self._columns = self._pick(self._seq)
        self._given = cache_candidates((*args, *kwargs.values()))
        known = [(left(), state()) for left, state in self._left if left() is not None]
        first = 0
        for value in self._given:
            for left, state in known:
                if left is cache_identity(value):
                    kept = cache_length(value, self._first + self._tokens) - self._first
                    if 0 < kept <= self._tokens:
                        return self._go_on(kept, state is cache_state(value))
            if is_cache(value):
                first = cache_length(value, 0)
        self._parts, self._changed = {number: [] for number in self._numbers}, set()
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
        new = self._new
        if new is None:
            return
        if number in new:
            raise ValueError(NO_STREAM.format(f"layer {number} ran twice in one forward pass"))
        if getattr(hidden, "shape", None) != self._shape:  # once a pass, mostly
            self._check(number, hidden)
        kept = hidden
        if not self._as_it_is or hidden.is_inference():
            # A tensor made under inference_mode can never train a probe: keep a normal one.
            kept = hidden.detach() if self._detach and hidden.requires_grad else hidden
            with torch.inference_mode(False) if kept.is_inference() else nullcontext():
                kept = self._kept(kept)
                kept = kept.clone() if kept.is_inference() else self._alone(kept)
        new[number] = kept, kept._version
        if number == self._stop_at:
            self._end(None, (), None)
            raise Stop(self)

    def _check(self, number: int, hidden: object) -> None:
        check_stream(number, hidden, self._width)
        if self._seq is None:
            self._seq = hidden.shape[1]
        elif hidden.shape[1] != self._seq:
            shape = f"layer {number} has shape {tuple(hidden.shape)} for {self._seq} tokens"
            raise ValueError(NO_STREAM.format(shape))
        self._shape = hidden.shape

    def _kept(self, hidden: Tensor) -> Tensor:
        """The chosen positions, of the type and in the place asked for."""
        if self._positions is not None:
            if self._columns is None:
                self._columns = self._pick(self._seq)
            if isinstance(self._columns, slice):
                hidden = hidden[:, self._columns]
            else:  # moved once a pass at most, as that waits for the GPU
                self._columns = self._columns.to(hidden.device)
                rows = torch.arange(len(hidden), device=hidden.device)[:, None]
                hidden = hidden[rows, self._columns]
        if self._dtype is not None:
            hidden = hidden.to(self._dtype)
        if self._to is None:
            return hidden
        if hidden.is_cuda and torch.device(self._to).type == "cpu":
            return self._to_host(hidden)
        return hidden.to(self._to, copy=True)

    def _to_host(self, hidden: Tensor) -> Tensor:
        """Into pinned memory, while CPU and GPU go on; reading waits for it.

        On a stream of its own, as the GPU does the work of one stream in order. What is copied is a
        copy on the GPU, since `hidden` itself may be changed in place before its turn comes.
        """
        stream = self._copying.get(hidden.device) or torch.cuda.Stream(hidden.device)
        self._copying[hidden.device] = stream
        hidden = hidden.clone()
        hidden.record_stream(stream)  # its memory is not used again until the stream is done
        stream.wait_stream(torch.cuda.current_stream(hidden.device))
        with torch.cuda.stream(stream):
            pinned = torch.empty(hidden.shape, dtype=hidden.dtype, pin_memory=True)
            return pinned.copy_(hidden, non_blocking=True)

    def _alone(self, hidden: Tensor) -> Tensor:
        """Cut off from what it was computed from, if asked, and from what it is a view of."""
        if self._detach and hidden.requires_grad:
            hidden = hidden.detach()
        is_part = hidden.untyped_storage().nbytes() > hidden.nbytes
        return hidden.clone() if is_part else hidden

    def _pick(self, seq: int) -> Tensor | slice:
        """The columns to keep of `seq`: (batch or 1, positions), or a slice that all rows share."""
        if self._positions != "last":
            wrong = [p for p in self._positions if not -seq <= p < seq]
            if wrong:
                raise ValueError(
                    f"position {wrong[0]} is not in this input: it has positions 0 to {seq - 1}"
                )
            return torch.tensor([self._positions])
        if self._mask is None:
            return slice(seq - 1, seq)
        if not isinstance(self._mask, Tensor) or self._mask.dim() != 2:
            raise ValueError('positions="last" needs an attention mask of shape (batch, seq)')
        mask = self._mask[:, -seq:] != 0  # with a cache the mask covers the earlier tokens too
        if not mask.any(dim=1).all():
            raise ValueError('positions="last": a row of this input has no real token')
        return seq - 1 - mask.flip(1).int().argmax(dim=1, keepdim=True)

    def _end(self, owner: nn.Module | None, args: tuple, output: object) -> None:
        """A pass is complete: only now does what it recorded count."""
        for number, parts in self._parts.items():
            kept, version = self._new.get(number, (None, 0))
            parts.append(None if kept is None else self._alone(kept))
            if kept is not None and kept._version != version:
                self._changed.add(number)
        self._tokens += self._seq or 0
        left = output.values() if isinstance(output, dict) else output
        left = left if isinstance(output, (dict, tuple, list)) else ()
        self._left = []
        for value in (*cache_candidates(left), *filter(is_cache, self._given)):
            known, state = cache_identity(value), cache_state(value)
            if known is not None and state is not None:
                self._left.append((weakref.ref(known), weakref.ref(state)))
        self._new = self._seq = self._mask = None
        self._given = []

    def _finish_copies(self) -> None:
        while self._copying:
            self._copying.popitem()[1].synchronize()


class Stop(Exception):
    """Raised to leave the forward pass; its argument is the recorder that has all it wants."""


@cache
def parameters(module_type: type) -> tuple[str, ...]:
    """The names of what a module's `forward` takes, in order."""
    return tuple(inspect.signature(module_type.forward).parameters)[1:]
