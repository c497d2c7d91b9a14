"""How many samples a lesson takes: three steps, so that results repeat on the same machine."""

from __future__ import annotations

from typing import TypeVar

from transformers import PreTrainedModel

Size = TypeVar("Size")
SMALL, MIDDLE = 20e6, 600e6  # parameters that are read on a CPU in no time, and in bearable time
CUDA = 50  # a GPU counts as so many CPUs


def sample_size(model: PreTrainedModel, small: Size, middle: Size, large: Size) -> Size:
    """One of three sizes, by what a forward pass costs: parameters, and whether a GPU runs them.

    `small` is for a model such as the shipped one, `middle` for 135 million parameters on a CPU or
    8 billion on a GPU, `large` for what costs more. It never looks at a clock, which would give
    other numbers each time.
    """
    cost = model.num_parameters() / (CUDA if model.device.type == "cuda" else 1)
    if cost <= SMALL:
        return small
    return middle if cost <= MIDDLE else large
