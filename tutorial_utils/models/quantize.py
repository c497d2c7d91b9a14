"""Store a model's weights in 4 bits with bitsandbytes, so that an 8B model fits on a GPU of 8 GB.

The format is nf4 (Dettmers et al. 2023, arXiv:2305.14314). A matrix of a linear layer takes 4 bits
for each weight, and one float32 scale for each block of 64 weights. Embedding, unembedding and
norms keep their dtype. So do the activations: they are recorded in the dtype that was asked for.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

VARIABLE = "TUTORIAL_QUANTIZE"
BLOCK = 64
BYTES_PER_WEIGHT = 0.5 + 4 / BLOCK
FAST_ROWS = 32  # the fast kernel for CPUs takes so many rows of a matrix at once


def check_quantize(quantize: str | None, device: torch.device) -> bool:
    """Whether 4 bits are asked for; None means the value of the variable TUTORIAL_QUANTIZE.

    Raises ValueError for anything but "4bit", and for a device that bitsandbytes does not support;
    OSError if bitsandbytes is not installed.
    """
    asked = os.environ.get(VARIABLE, "").strip() if quantize is None else quantize
    if not asked:
        return False
    if asked != "4bit":
        raise ValueError(f'quantize is "4bit" or None, not {asked!r} (or set {VARIABLE}=4bit)')
    if device.type not in ("cuda", "cpu"):
        raise ValueError(f'quantize="4bit" runs on "cuda" and "cpu", not on {device.type!r}')
    if importlib.util.find_spec("bitsandbytes") is None:
        raise OSError('quantize="4bit" needs bitsandbytes: `pip install bitsandbytes`')
    return True


def check_blocks(empty: PreTrainedModel, label: str, device: torch.device) -> None:
    """Raise ValueError if bitsandbytes cannot compute with the model's matrices on this device.

    On CPUs with AVX-512 it takes the scales of the wrong blocks, or raises an error, if a row of a
    matrix is not a whole number of blocks. `empty` is the model on the meta device.
    """
    if device.type != "cpu":
        return
    for name, _, row in _matrices(empty):
        if row % BLOCK:
            raise ValueError(
                f"{label} cannot be held in 4 bits on a CPU: a row of {name} has {row} weights, "
                f"and bitsandbytes needs a multiple of {BLOCK}. Use a GPU, or load the model "
                "without 4 bits."
            )


def four_bits(dtype: torch.dtype) -> BitsAndBytesConfig:
    """The settings for transformers; matrix products are computed in `dtype`.

    (On CPUs with AVX512-BF16, bitsandbytes computes most of them in bfloat16.)
    """
    _import_quietly()
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
    )


def avoid_fast_kernel(model: PreTrainedModel) -> None:
    """Keep the fast kernel for CPUs away from matrices whose number of rows it does not take."""
    modules: Iterable[Any] = model.modules()
    for module in modules:
        if hasattr(module, "support_avx512bf16_for_cpu") and module.out_features % FAST_ROWS:
            module.support_avx512bf16_for_cpu = False


def _import_quietly() -> None:
    """Import bitsandbytes without its message about a missing package.

    On CPUs with AVX512-BF16 it logs a warning if `kernels` is missing. It works without `kernels`,
    and the warning would stay in the notebook's output.
    """
    log = logging.getLogger("bitsandbytes.backends.cpu.ops")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        importlib.import_module("bitsandbytes")
    finally:
        log.setLevel(level)


def _matrices(empty: PreTrainedModel) -> Iterator[tuple[str, Tensor, int]]:
    """The matrices that are stored in 4 bits: name, weight, and the number of weights in a row."""
    unembedding = empty.get_output_embeddings()  # keeps its dtype
    for name, module in empty.named_modules():
        if isinstance(module, nn.Linear) and module is not unembedding:
            yield name, module.weight, module.in_features
        elif isinstance(module, Conv1D):  # GPT-2's: (in, out), is turned when it is stored
            yield name, module.weight, module.weight.shape[0]


def bytes_in_four_bits(empty: PreTrainedModel) -> int:
    """How many bytes the weights take in 4 bits; `empty` is the model on the meta device."""
    quantized = {id(weight) for _, weight, _ in _matrices(empty)}
    return sum(
        int(weight.numel() * (BYTES_PER_WEIGHT if id(weight) in quantized else weight.itemsize))
        for weight in empty.parameters()
    )
