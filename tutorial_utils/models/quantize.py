"""Weights in 4 bits, by bitsandbytes, on CUDA and on the CPU: an 8B model on a card of 8 GB.

nf4 (Dettmers et al. 2023, arXiv:2305.14314): the matrices of the linear layers hold 4 bits for each
weight, and a float32 scale for each 64 of them. Embedding, unembedding and norms stay as they are,
and so do the activations: what is recorded has the dtype that was asked for.
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
    """Whether 4 bits are asked for; None means what the variable TUTORIAL_QUANTIZE says.

    Raises ValueError for anything but "4bit", and for a device that bitsandbytes does not know;
    OSError where bitsandbytes is not installed.
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
    """The settings for transformers; matrix products are made in `dtype`."""
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
    )


def bytes_in_four_bits(empty: PreTrainedModel) -> int:
    """What the weights of a model on the meta device take, the unembedding left as it is."""
    kept = empty.get_output_embeddings()
    linear = [module for module in empty.modules() if isinstance(module, nn.Linear)]
    small = {id(module.weight) for module in linear if module is not kept}
    return sum(
        int(weight.numel() * (BYTES_PER_WEIGHT if id(weight) in small else weight.itemsize))
        for weight in empty.parameters()
    )
