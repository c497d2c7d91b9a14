"""Attention patterns: which tokens each head attends to.

Decoder layers are numbered from 1, heads from 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tutorial_utils.activations.hooks import hooked_modules
from tutorial_utils.activations.inputs import check_options, parameters
from tutorial_utils.activations.layers import locate
from tutorial_utils.activations.parts import Layers, decoder_layers, find_part, in_order, run_up_to

NO_PATTERN = (
    "decoder layer {} gave no attention pattern (batch, head, query, key), rows of weights from 0 "
    "to 1: {}. Its attention is not a softmax over keys, or its code does not return the pattern"
)


def read_attention(
    model: nn.Module, input_ids: Tensor, layers: Layers = None, **inputs: object
) -> dict[int, Tensor]:
    """Read attention patterns: `{layer: (batch, head, query, key)}`, rows of weights from 0 to 1.

    The model runs on `input_ids` `(batch, seq)` up to the last of `layers`. It runs with attention
    in plain PyTorch ("eager"), because faster implementations never compute the pattern. Its
    settings are restored afterwards. By hand: the lesson on a decoder layer.

    Args:
        model: a causal language model.
        input_ids: `(batch, seq)`.
        layers: numbers of decoder layers, from 1; None means all whose attention has a pattern.
        inputs: further inputs of the model, such as `attention_mask`.

    Raises:
        ValueError: for a layer that is not there, or whose attention returns no pattern.
        TypeError: for an option that neither this function nor the model knows.
    """
    check_options(model, inputs, "read_attention", ("layers",))
    attentions = _attentions(model, layers)
    patterns: dict[int, Tensor] = {}
    faults: dict[int, str] = {}
    asked = attentions
    while asked:
        hooks = [
            (module.register_forward_hook, _keep_pattern(patterns, faults, number))
            for number, module in asked.items()
        ]
        with hooked_modules(locate(model), hooks), _eager_attention(model):
            run_up_to(max(asked), model, input_ids, None, inputs)
        # Some attentions return the pattern only if output_attentions is set.
        asked = {n: m for n, m in asked.items() if n in faults and _can_ask_for_it(m, inputs)}
        inputs = {**inputs, "output_attentions": True}
    if faults and (layers is not None or not patterns):
        raise ValueError(NO_PATTERN.format(*next(iter(faults.items()))))
    return in_order(patterns, [number for number in attentions if number not in faults])


def _can_ask_for_it(attention: nn.Module, inputs: dict[str, object]) -> bool:
    return "output_attentions" in parameters(attention) and "output_attentions" not in inputs


def _attentions(model: nn.Module, layers: Layers) -> dict[int, nn.Module]:
    """The attention of each of these layers; if `layers` is None, of all that have one."""
    found, numbers = {}, decoder_layers(model, layers)
    for number in numbers:
        try:
            found[number] = find_part(model, "attention", number)
        except ValueError:
            if layers is not None or (number == numbers[-1] and not found):
                raise
    return found


def _keep_pattern(patterns: dict[int, Tensor], faults: dict[int, str], layer: int) -> Callable:
    def hook(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        given = output if isinstance(output, (tuple, list)) else [output]
        pattern = next((p for p in given[1:] if isinstance(p, Tensor) and p.dim() == 4), None)
        if pattern is None:
            faults[layer] = "there was none"
            return
        low, high = pattern.min(), pattern.sum(dim=-1, dtype=torch.float32).max()
        if low >= 0 and high <= 1.01 and pattern.shape[2] == given[0].shape[-2]:
            patterns[layer] = pattern.detach()
            faults.pop(layer, None)
            return
        shape = tuple(pattern.shape)
        faults[layer] = f"shape {shape}, least {low:.3g}, largest row sum {high:.3g}"

    return hook


@contextmanager
def _eager_attention(model: nn.Module) -> Iterator[None]:
    """Run the model with attention in plain PyTorch; restore its settings afterwards."""
    found = [c for module in model.modules() for c in _configs(getattr(module, "config", None))]
    before = [(c, c._attn_implementation) for c in found if hasattr(c, "_attn_implementation")]
    try:
        for config, _ in before:
            config._attn_implementation = "eager"
        yield
    finally:
        # Setting an outer configuration also sets those inside it, so the inner ones come later.
        for config, name in before:
            config._attn_implementation = name


def _configs(config: Any) -> Iterator[Any]:
    """A configuration and, for a composite model, those inside it, from the outside inwards."""
    yield config
    for name in getattr(config, "sub_configs", ()):
        yield from _configs(getattr(config, name, None))
