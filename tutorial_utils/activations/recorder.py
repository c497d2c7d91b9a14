"""The recorder behind `record_activations`: its hooks keep the residual stream of each pass."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tutorial_utils.activations.hooks import Stop, check_stream
from tutorial_utils.activations.inputs import ignores_mask, named_arguments
from tutorial_utils.activations.kv_cache import (
    cache_candidates,
    cache_identity,
    cache_length,
    first_batch_tensor,
    is_cache,
)
from tutorial_utils.activations.layers import NO_STREAM, DecoderLayers
from tutorial_utils.activations.positions import last_columns, listed_columns, real_tokens
from tutorial_utils.activations.reader import NO_REAL_TOKEN, Record


class Options(NamedTuple):
    """How `record_activations` was asked to keep what it records."""

    positions: str | list[int] | None
    to: torch.device | str | None
    dtype: torch.dtype | None
    detach: bool
    stop_at: int | None  # the layer number after which nothing is computed


class Recorder:
    """Fills a `Record`.

    In each forward pass the hooks call, in this order: `see_inputs` for each module around the one
    that runs the layers; `start_pass` for that one; `store` at each layer; `end_pass`. A pass is
    added to the record only when it is complete.
    """

    def __init__(self, record: Record, options: Options, where: DecoderLayers) -> None:
        self.record, self.options, self._where = record, options, where
        # Whether the layers' own tensors are kept, and no copies.
        self._by_reference = (options.positions, options.to, options.dtype) == (None, None, None)
        self._first = self._tokens = 0  # position of the first recorded token, number of tokens
        # The caches that the last pass used or returned, and the first tensor in each.
        self._left: list[tuple[weakref.ref, weakref.ref]] = []
        self._replaced: list[weakref.ref] = []  # caches of passes that another pass has replaced
        # About the pass that runs now:
        self._level = -1  # the depth of the last module seen: 0 is the model, 1, 2, ... are inside
        # Tensor and its version number by layer; None if no pass is running.
        self._new: dict[int, tuple[Tensor, int]] | None = None
        self._seq: int | None = None  # number of tokens, if the inputs tell
        self._mask: object = None
        self._shape: torch.Size | None = None  # of the last layer seen
        self._columns: Tensor | slice | None = None  # the columns to keep
        self._padding_row: int | None = None  # the first row that has no real token
        self._given: list = []  # the inputs that may be a KV cache

    def see_inputs(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        """Note the inputs of the model, and of each module down to the one that runs the layers."""
        level = self._where.owners.index(module)
        if level <= self._level:  # the pass before did not finish: forget its inputs
            self._seq = self._mask = None
        self._level = level
        given = named_arguments(module, args, kwargs)
        if self.options.positions == "last":
            refuse_tried_tokens(given)
        for name in ("input_ids", "inputs_embeds"):
            tensor = given.get(name)
            if isinstance(tensor, Tensor) and tensor.dim() > 1:
                self._seq = tensor.shape[1]
        if self._mask is None:  # inner modules may get the mask in another form
            self._mask = given.get("attention_mask")

    def start_pass(self, owner: nn.Module, args: tuple, kwargs: dict) -> None:
        """A pass through the layers begins. It continues the last one or starts a new record."""
        self.see_inputs(owner, args, kwargs)
        self._new, self._columns, self._shape, self._padding_row = {}, None, None, None
        self._given = cache_candidates((*args, *kwargs.values()))
        if self._seq is not None:
            self._choose_columns(self._seq)
        self._continue_or_restart()

    def _choose_columns(self, seq: int) -> None:
        """Choose the columns to keep. Called once per pass, as it may have to wait for the GPU."""
        positions = self.options.positions
        if isinstance(positions, list):
            self._columns = listed_columns(positions, seq)
        elif positions is not None:
            lengths = [cache_length(value, -1) for value in self._given if is_cache(value)]
            past = lengths[0] if lengths and lengths[0] >= 0 else None
            real = real_tokens(self._mask, seq, past)
            self._columns = slice(seq - 1, seq) if real is None else last_columns(real)
            if real is not None and not real.all():
                self._check_padding(real)

    def _check_padding(self, real: Tensor) -> None:
        padding = (~real.any(dim=1)).nonzero()
        if len(padding):
            row = int(padding[0])
            if not any(map(is_cache, self._given)):
                raise ValueError(NO_REAL_TOKEN.format(row))
            # Reading the record is an error then, unless the next pass holds more of the prompt.
            self._padding_row = row
        model = self._where.owners[0]
        if (real[:, 1:] & ~real[:, :-1]).any() and ignores_mask(model):
            raise ValueError(
                f"{type(model).__name__} reads the padding in front of a prompt as text, whatever "
                "the mask says: run one prompt at a time"
            )

    def _continue_or_restart(self) -> None:
        """Append to the record if this pass continues the last one; empty it if not."""
        caches = [(cache(), tensor()) for cache, tensor in self._left if cache() is not None]
        first = 0
        for value in self._given:
            identity = cache_identity(value)
            for cache, tensor in caches:
                if cache is identity:
                    kept = cache_length(value, self._first + self._tokens) - self._first
                    if 0 < kept <= self._tokens:
                        self._continue_cache(kept, tensor is first_batch_tensor(value))
                        return
            if identity is not None and any(known() is identity for known in self._replaced):
                raise ValueError(
                    "the model ran another forward pass between two that share a KV cache, as in "
                    "generate with guidance_scale, so it is not clear which to keep. Generate "
                    "first, then record one pass over the generated sequences"
                )
            if is_cache(value):
                first = cache_length(value, 0)
        given = [cache_identity(value) for value in self._given]
        ended = [cache for cache, _ in self._left if not any(cache() is value for value in given)]
        self._replaced = [cache for cache in (*self._replaced, *ended) if cache() is not None]
        self.record.forget()
        self._first, self._tokens = first, 0

    def _continue_cache(self, kept: int, rows_stayed: bool) -> None:
        """Get ready to append this pass to the first `kept` tokens of the record."""
        if kept == self._tokens and not rows_stayed:
            raise ValueError(
                "the rows of the KV cache were moved between two forward passes, as in beam "
                "search, so the record would mix rows. Generate first, then record one pass "
                "over the generated sequences"
            )
        positions = self.options.positions
        if isinstance(positions, list) or (positions and kept < self._tokens):
            raise ValueError(
                f"positions={positions!r} counts within one forward pass, and this pass "
                "continues another: record all positions"
            )
        if self.record.padding_row is not None:  # a chunk that was all padding in one row
            self.record.forget()
        if kept < self._tokens:  # tokens were removed from the cache: remove them here too
            self.record.crop(kept)
            self._tokens = kept

    def store(self, number: int, hidden: Tensor) -> None:
        """Keep the output `hidden` (batch, seq, hidden) of layer `number`, as the options say."""
        new = self._new
        if new is None:  # gradient checkpointing runs a layer again in the backward pass
            return
        if number in new:
            raise ValueError(NO_STREAM.format(f"layer {number} ran twice in one forward pass"))
        if getattr(hidden, "shape", None) != self._shape:  # usually once per pass
            self._check_shape(number, hidden)
        kept = hidden
        if not self._by_reference or hidden.is_inference():
            # A probe can't be trained on a tensor made under inference_mode: keep a normal copy.
            kept = hidden.detach() if self.options.detach and hidden.requires_grad else hidden
            with torch.inference_mode(False) if kept.is_inference() else nullcontext():
                kept = self._apply_options(kept)
                kept = kept.clone() if kept.is_inference() else self._detach_and_unshare(kept)
        new[number] = kept, kept._version
        if number == self.options.stop_at:
            self.end_pass(None, (), None)
            raise Stop(self)

    def _check_shape(self, number: int, hidden: Tensor) -> None:
        check_stream(number, hidden, self._where.width)
        if self._seq is None:
            self._seq = hidden.shape[1]
        elif hidden.shape[1] != self._seq:
            shape = f"layer {number} has shape {tuple(hidden.shape)}, where seq is {self._seq}"
            raise ValueError(NO_STREAM.format(shape))
        self._shape = hidden.shape

    def _apply_options(self, hidden: Tensor) -> Tensor:
        """Copy the chosen positions, in the dtype and on the device that were asked for."""
        options = self.options
        if options.positions is not None:
            hidden = self._at_columns(hidden)
        if options.dtype is not None:
            hidden = hidden.to(options.dtype)
        if options.to is None:
            return hidden
        if hidden.is_cuda and torch.device(options.to).type == "cpu":
            return copy_to_host(hidden, self.record.copying)
        return hidden.to(options.to, copy=True)

    def _at_columns(self, hidden: Tensor) -> Tensor:
        if self._columns is None:
            self._choose_columns(hidden.shape[1])
        if isinstance(self._columns, Tensor):  # moved at most once per pass: it waits for the GPU
            self._columns = self._columns.to(hidden.device)
            rows = torch.arange(len(hidden), device=hidden.device)[:, None]
            return hidden[rows, self._columns]
        return hidden[:, self._columns]

    def _detach_and_unshare(self, hidden: Tensor) -> Tensor:
        """Detach from the autograd graph, if asked; copy if this is a view of a larger tensor."""
        if self.options.detach and hidden.requires_grad:
            hidden = hidden.detach()
        is_part = hidden.untyped_storage().nbytes() > hidden.nbytes
        return hidden.clone() if is_part else hidden

    def end_pass(self, owner: nn.Module | None, args: tuple, output: object) -> None:
        """The pass is complete: add it to the record."""
        new, record = self._new or {}, self.record
        for number, tensors in record.passes.items():
            if number not in new:
                tensors.append(None)
                continue
            kept, version = new[number]
            tensors.append(self._detach_and_unshare(kept))
            if kept._version != version:
                record.changed_in_place.add(number)
        self._tokens += self._seq or 0
        self._left = []
        if isinstance(output, dict):
            output = tuple(output.values())
        returned = cache_candidates(output) if isinstance(output, (tuple, list)) else []
        for value in (*returned, *filter(is_cache, self._given)):
            cache, tensor = cache_identity(value), first_batch_tensor(value)
            if cache is not None and tensor is not None:
                self._left.append((weakref.ref(cache), weakref.ref(tensor)))
        record.padding_row = self._padding_row
        self._new = self._seq = self._mask = None
        self._given, self._level = [], -1


def refuse_tried_tokens(given: Mapping[str, object]) -> None:
    """Raise ValueError for a pass of assisted decoding, whose last tokens may be rejected later."""
    tried = given.get("logits_to_keep")  # in all other decoding it is 1
    if isinstance(tried, int) and tried > 1 and any(map(is_cache, given.values())):
        raise ValueError(
            f'positions="last" does not go with logits_to_keep={tried} and a KV cache, as in '
            "assisted decoding, which tries several tokens at once: record all positions"
        )


def copy_to_host(hidden: Tensor, streams: dict[torch.device, torch.cuda.Stream]) -> Tensor:
    """Copy into pinned memory while CPU and GPU go on; `Record.finish_copies` waits for it.

    The copy has its own CUDA stream, so that the GPU can go on before the copy is finished.
    `hidden` is cloned first, because the model may change it in place before it is copied.
    """
    stream = streams.get(hidden.device) or torch.cuda.Stream(hidden.device)
    streams[hidden.device] = stream
    hidden = hidden.clone()
    hidden.record_stream(stream)  # its memory is not used again until the stream is done
    stream.wait_stream(torch.cuda.current_stream(hidden.device))
    with torch.cuda.stream(stream):
        pinned = torch.empty(hidden.shape, dtype=hidden.dtype, pin_memory=True)
        return pinned.copy_(hidden, non_blocking=True)
