"""Store a model's weights in 4 bits with bitsandbytes, so that an 8B model fits on a GPU of 8 GB.

The format is nf4 (Dettmers et al. 2023, arXiv:2305.14314). A matrix of a linear layer takes 4 bits
for each weight, and one float32 scale for each block of 64 weights. Embedding, unembedding and
norms keep their dtype. So do the activations: they are recorded in the dtype that was asked for.
"""

from __future__ import annotations

import importlib.util
import os

import torch
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel

VARIABLE = "TUTORIAL_QUANTIZE"
BYTES_PER_WEIGHT = 0.5 + 4 / 64


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


def four_bits(dtype: torch.dtype) -> BitsAndBytesConfig:
    """The settings for transformers; matrix products are computed in `dtype`."""
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
    )


def bytes_in_four_bits(empty: PreTrainedModel) -> int:
    """How many bytes the weights take in 4 bits; `empty` is the model on the meta device."""
    unembedding = empty.get_output_embeddings()  # not quantized
    linear = [module for module in empty.modules() if isinstance(module, nn.Linear)]
    quantized = {id(module.weight) for module in linear if module is not unembedding}
    return sum(
        int(weight.numel() * (BYTES_PER_WEIGHT if id(weight) in quantized else weight.itemsize))
        for weight in empty.parameters()
    )
