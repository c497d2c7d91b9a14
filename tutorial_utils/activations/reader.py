"""What `record_activations` and `read_activations` return: tensors by layer number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

NO_REAL_TOKEN = (
    'positions="last": row {} of this input is all padding: leave that row out, or record all '
    "positions"
)


class Record:
    """The tensors that a recorder has kept so far. `Activations` reads them."""

    def __init__(self, layers: list[int], count: int) -> None:
        self.layers = layers  # the layer numbers asked for, in that order
        self.count = count  # how many decoder layers the model has
        self.copying: dict[torch.device, torch.cuda.Stream] = {}  # to the host
        self.forget()

    def forget(self) -> None:
        """Empty the record."""
        # One tensor for each forward pass, or None if the pass skipped the layer. Joined when read.
        self.passes: dict[int, list[Tensor | None]] = {number: [] for number in self.layers}
        self.changed_in_place: set[int] = set()  # layers whose tensor was changed after recording
        # If "last" was asked for: the first row of the last pass that has no real token.
        self.padding_row: int | None = None

    def crop(self, kept: int) -> None:
        """Keep the first `kept` tokens only."""
        tensors = Activations(self)
        self.passes = {number: [tensors[number][:, :kept].clone()] for number in self.layers}

    def finish_copies(self) -> None:
        """Wait for copies from a GPU that are not finished yet."""
        while self.copying:
            self.copying.popitem()[1].synchronize()


class Activations(Mapping[int, Tensor]):
    """What was recorded: {layer number: tensor (batch, seq, hidden)}, read like a dict.

    Negative layer numbers count from the end, as in a list. Read it after the model has run.

    Example::

        activations[-1].shape                          # (batch, seq, hidden)
        for layer, hidden in activations.items(): ...  # in the order asked for

    Reading raises KeyError for a layer that was not asked for, that the model has not run yet, or
    that it skipped; ValueError for a tensor that was changed in place after it was recorded.
    """

    def __init__(self, record: Record) -> None:
        self._record = record

    def __getitem__(self, layer: int) -> Tensor:
        record = self._record
        try:
            number = range(record.count + 1)[layer]
        except (IndexError, TypeError):
            number = -1
        if number not in record.passes:
            raise KeyError(f"layer {layer} was not recorded; recorded layers: {record.layers}")
        passes = record.passes[number]
        tensors = [tensor for tensor in passes if tensor is not None]
        if not passes:
            raise KeyError(
                f"layer {layer} is not there yet: run the model inside the `with` block, "
                "and read the activations after that"
            )
        if len(tensors) < len(passes):
            raise KeyError(f"layer {layer} is not there: the model left this decoder layer out")
        if record.padding_row is not None:
            raise ValueError(NO_REAL_TOKEN.format(record.padding_row))
        if number in record.changed_in_place:
            raise ValueError(
                f"layer {layer} was changed in place after it was recorded, by a later hook or by "
                'the model itself: record a copy, for example with to="cpu"'
            )
        record.finish_copies()
        if len(tensors) > 1:
            tensors = [torch.cat(tensors, dim=1)]
            passes[:] = tensors
        return tensors[0]

    def __iter__(self) -> Iterator[int]:
        return iter(self._record.layers)

    def __len__(self) -> int:
        return len(self._record.layers)

    def __repr__(self) -> str:
        shapes = {
            number: [tuple(tensor.shape) for tensor in passes if tensor is not None]
            for number, passes in self._record.passes.items()
        }
        return f"Activations({shapes})"
