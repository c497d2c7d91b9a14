"""The two parts of a decoder layer, attention and MLP: what each adds to the residual stream.

Decoder layers are numbered from 1. What the parts of decoder layer i add changes the stream of
layer i - 1 into that of layer i.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tutorial_utils.activations.hooks import hooked_modules
from tutorial_utils.activations.inputs import check_options, named_arguments
from tutorial_utils.activations.layers import layer_numbers, locate
from tutorial_utils.activations.positions import (
    Positions,
    check_positions,
    last_columns,
    listed_columns,
    real_tokens,
)
from tutorial_utils.activations.record_and_edit import read_activations

Layers = int | slice | Iterable[int] | None  # as the caller gives them
OPTIONS = ("layers", "positions")

# The names of the two parts of a decoder layer, in the architectures of transformers.
PARTS = {
    "attention": ("self_attn", "attn", "self_attention", "attention"),
    "mlp": ("mlp", "feed_forward", "ffn", "block_sparse_moe", "fc2"),
}
# The names of attention's output matrix there, which combines the heads.
OUTPUT = ("o_proj", "out_proj", "c_proj", "dense", "Wo")
# The names of norms that are applied to the output of the two parts before it is added.
BEHIND = (
    ("post_self_attn_layernorm", "post_mlp_layernorm"),  # GLM 4
    ("post_norm1", "post_norm2"),  # HyperCLOVA X
    ("post_attention_layernorm", "post_mlp_layernorm"),  # AFMoE
    ("post_attention_layernorm", "post_feedforward_layernorm"),  # Gemma 2 and 3, OLMo 2, EXAONE 4
)


def find_part(model: nn.Module, part: str, layer: int) -> nn.Module:
    """The module that computes this part, "attention" or "mlp", of the decoder layer `layer`.

    Raises:
        ValueError: for another part, for a layer that is not there, and for a layer that has no
            single module known as this part.
    """
    if part not in PARTS:
        raise ValueError(f'part is None, "attention" or "mlp", not {part!r}')
    layers = locate(model).layers
    if not 1 <= layer <= len(layers):
        raise ValueError(
            f"layer {layer} has no {part}: the decoder layers are 1 to {len(layers)} here"
        )
    children = dict(layers[layer - 1].named_children())
    found = [children[name] for name in PARTS[part] if name in children]
    if not found or isinstance(found[0], nn.ModuleList):
        raise ValueError(
            f"decoder layer {layer} has {'more than one' if found else 'no'} part that is known as "
            f"{part}: its parts are {', '.join(children)}. Use a hook of your own, as the lesson "
            "on patching does by hand"
        )
    return found[0]


def find_output_matrix(attention: nn.Module) -> nn.Module | None:
    """The output matrix of `attention`, which maps all heads, side by side, to the stream."""
    found = [
        module
        for name, module in attention.named_modules()
        if name.split(".")[-1] in OUTPUT and name.count(".") <= 1
    ]
    return found[0] if len(found) == 1 else None


def find_norm_behind(layer: nn.Module, part: str) -> nn.Module | None:
    """The norm between the output of a part and its addition to the stream, as in Gemma 2."""
    children = dict(layer.named_children())
    pair = next((names for names in BEHIND if set(names) <= {*children}), None)
    return None if pair is None else children[pair[list(PARTS).index(part)]]


def decoder_layers(model: nn.Module, layers: Layers) -> list[int]:
    """Numbers of decoder layers, from 1; None means all. ValueError for one that is not there."""
    count = len(locate(model).layers)
    numbers = layer_numbers(slice(1, None) if layers is None else layers, count)
    if 0 in numbers:
        raise ValueError(
            f"layer 0 is the embedding output and has no parts: decoder layers are 1 to {count}"
        )
    return numbers


def choose(positions: Positions, mask: object) -> Callable[[Tensor], Tensor]:
    """A function that copies the chosen positions, (batch, seq, ...) to (batch, positions, ...)."""
    wanted = check_positions(positions)

    def pick(given: Tensor) -> Tensor:
        if wanted is None:
            return given
        seq = given.shape[1]
        real = real_tokens(mask, seq, past=None) if wanted == "last" else None
        if real is not None:
            columns = last_columns(real)
        else:
            columns = listed_columns([-1] if isinstance(wanted, str) else wanted, seq)
        rows = torch.arange(len(given), device=given.device)[:, None]
        return given[rows, columns.to(given.device)]

    return pick


def run_up_to(
    layer: int, model: nn.Module, input_ids: Tensor, positions: Positions, inputs: dict[str, Any]
) -> None:
    """Run the model up to this decoder layer: no logits, no KV cache, no gradients.

    The recorder checks positions and mask on the way. What it records is not used.
    """
    if positions is None:
        positions = [0]  # record as little as possible
    read_activations(model, input_ids, layers=layer, positions=positions, **inputs)


def in_order(kept: dict[int, Tensor], numbers: list[int]) -> dict[int, Tensor]:
    """The tensors of these decoder layers, in this order; ValueError if one is missing."""
    for number in numbers:
        if number not in kept:
            raise ValueError(f"the model skipped decoder layer {number}, or this part of it")
    return {number: kept[number] for number in numbers}


def read_parts(
    model: nn.Module,
    input_ids: Tensor,
    part: str,
    *,
    layers: Layers = None,
    positions: Positions = None,
    **inputs: object,
) -> dict[int, Tensor]:
    """The output of "attention" or "mlp" in each decoder layer: {layer: (batch, seq, hidden)}.

    Layer i is the ith decoder layer, from 1. The output is added to the residual stream; a few
    architectures, such as Gemma 2, normalise it first.

    `layers` are all by default, `positions` is as in `record_activations`, and `inputs` are further
    inputs of the model. By hand: the lesson on patching and steering.
    """
    check_options(model, inputs, "read_parts", ("part", *OPTIONS))
    if part not in PARTS:
        raise ValueError(f'part is "attention" or "mlp", not {part!r}')
    numbers = decoder_layers(model, layers)
    pick = choose(positions, inputs.get("attention_mask"))
    with record_parts(model, part, numbers, pick, len(input_ids)) as kept:
        run_up_to(max(numbers), model, input_ids, positions, inputs)
    return in_order(kept, numbers)


@contextmanager
def record_parts(
    model: nn.Module, part: str, numbers: list[int], pick: Callable[[Tensor], Tensor], batch: int
) -> Iterator[dict[int, Tensor]]:
    """Keep what `pick` takes of a part's output in these decoder layers, in a pass in the block."""
    kept: dict[int, Tensor] = {}
    with ExitStack() as stack:
        for layer in numbers:

            def keep(given: Tensor, layer: int = layer) -> None:
                kept[layer] = pick(given)

            stack.enter_context(hooked_part(model, part, layer, batch, keep))
        yield kept


@contextmanager
def hooked_part(
    model: nn.Module, part: str, layer: int, batch: int, function: Callable[[Tensor], Tensor | None]
) -> Iterator[None]:
    """Call `function` on the output of this part; a tensor that it returns is added instead."""

    def hook(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> object:
        has_more = isinstance(output, (tuple, list))  # attention also returns its weights
        given = output[0] if has_more else output
        if not isinstance(given, Tensor):
            raise ValueError(f"the {part} of decoder layer {layer} gives {type(given).__name__}")
        # In BLOOM and MPT the part itself adds the stream: subtract it here, add it again below.
        stream: Any = named_arguments(module, args, kwargs).get("residual", 0)
        added = given - stream
        if given.dim() == 2:  # OPT's is (batch * seq, hidden)
            added = added.reshape(batch, -1, given.shape[-1])
        new = function(added)
        if new is None:
            return None
        new = new.reshape(given.shape) + stream
        return type(output)([new, *output[1:]]) if has_more else new

    module = find_part(model, part, layer)
    with hooked_modules(locate(model), [(module.register_forward_hook, hook)]):
        yield
