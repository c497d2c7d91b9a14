"""Attention heads: read what each adds to the residual stream, change it, or remove heads.

Decoder layers are numbered from 1, heads from 0. Heads are read at the *input* of attention's
output matrix (`o_proj`), where they lie side by side. The output of that matrix is the sum over all
heads: no slice of it is a head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from tutorial_utils.activations.hooks import edits_by_layer, hooked_modules, run_edit
from tutorial_utils.activations.inputs import check_options
from tutorial_utils.activations.layers import locate
from tutorial_utils.activations.parts import (
    OPTIONS,
    Layers,
    choose,
    decoder_layers,
    find_output_matrix,
    find_part,
    in_order,
    run_up_to,
)
from tutorial_utils.activations.positions import Positions

# The attributes of an attention module that hold the size of a head and the number of heads.
SIZE = ("v_head_dim", "head_dim", "head_size")
COUNT = ("num_heads", "num_attention_heads", "n_heads", "n_head")


def read_heads(
    model: nn.Module,
    input_ids: Tensor,
    layers: Layers,
    *,
    positions: Positions = None,
    **inputs: object,
) -> dict[int, Tensor]:
    """What each head adds to the residual stream: `{layer: (batch, head, positions, hidden)}`.

    The heads of a layer add up to the output of its attention minus the bias of the output matrix.
    All layers of an 8B model at 512 tokens take 4 GB in half precision. So you must give `layers`,
    and should give `positions` (column numbers or "last", as in `record_activations`).

    Raises:
        ValueError: for a layer that is not there, and if the heads do not add up because the
            attention applies more than one matrix to them.
        TypeError: for an option that neither this function nor the model knows.
    """
    check_options(model, inputs, "read_heads", OPTIONS)
    return _read(model, input_ids, layers, positions, inputs, _apart)


def read_head_outputs(
    model: nn.Module,
    input_ids: Tensor,
    layers: Layers,
    *,
    positions: Positions = None,
    **inputs: object,
) -> dict[int, Tensor]:
    """The outputs of the heads before the output matrix: `{layer: (batch, positions, head, size)}`.

    These are the numbers that `edit_heads` changes and that `ablate_heads` replaces.
    Options and errors are those of `read_heads`.
    """
    check_options(model, inputs, "read_head_outputs", OPTIONS)
    return _read(model, input_ids, layers, positions, inputs, lambda heads, *_: heads)


Look = Callable[[Tensor, Tensor, int, Callable[[Tensor], Tensor]], Tensor]


def _read(
    model: nn.Module,
    input_ids: Tensor,
    layers: Layers,
    positions: Positions,
    inputs: dict,
    look: Look,
) -> dict[int, Tensor]:
    """Run the model and return what `record_heads` keeps."""
    numbers = decoder_layers(model, layers)
    pick = choose(positions, inputs.get("attention_mask"))
    with record_heads(model, numbers, pick, look) as kept:
        run_up_to(max(numbers), model, input_ids, positions, inputs)
    return in_order(kept, numbers)


def _apart(heads: Tensor, whole: Tensor, layer: int, run: Callable[[Tensor], Tensor]) -> Tensor:
    """What each single head adds to `whole` `(batch, positions, hidden)`."""
    alone = torch.zeros_like(heads)
    bias = run(alone[:, :1].flatten(-2))
    missing = whole - bias
    apart = whole.new_empty(len(whole), heads.shape[2], *whole.shape[1:])
    for head in range(heads.shape[2]):
        alone[:, :, head] = heads[:, :, head]
        apart[:, head] = run(alone.flatten(-2)) - bias
        alone[:, :, head] = 0
        missing -= apart[:, head]
    gap, *sizes = (torch.linalg.vector_norm(t, torch.inf) for t in (missing, apart, whole))
    largest = max(sizes)
    if not gap <= 0.05 * largest:  # rounding in int8 kernels can be that large
        raise ValueError(
            f"the heads of decoder layer {layer} do not add up to the output of its attention: up "
            f"to {gap:.2g} is missing, where the largest number is {largest:.2g}"
        )
    return apart


@contextmanager
def record_heads(
    model: nn.Module, numbers: list[int], pick: Callable[[Tensor], Tensor], look: Look = _apart
) -> Iterator[dict[int, Tensor]]:
    """Keep `look(heads, output, layer, matrix)` of these decoder layers, in a pass in the block."""
    kept: dict[int, Tensor] = {}

    def hook_of(layer: int, count: int) -> Callable:
        def hook(matrix: nn.Module, args: tuple, kwargs: dict, output: Tensor) -> None:
            def run(mixed: Tensor) -> Tensor:
                # The module's own code is used: it may be Conv1D, quantized, or have an adapter.
                # `forward` skips its hooks, which have changed this input already.
                return matrix.forward(mixed, *args[1:], **kwargs)

            heads = pick(_side_by_side(args[0], count))
            kept[layer] = look(heads, pick(output), layer, run)

        return hook

    found = [(number, *_output_matrix(model, number)) for number in numbers]
    hooks = [(matrix.register_forward_hook, hook_of(n, count)) for n, matrix, count in found]
    with hooked_modules(locate(model), hooks):
        yield kept


@contextmanager
def edit_heads(model: nn.Module, edits: Mapping[int, Callable[[Tensor], Tensor]]) -> Iterator[None]:
    """Change the outputs of heads while the model runs inside the `with` block.

    Example::

        with edit_heads(model, {2: lambda heads: heads * keep}):
            model(**inputs)

    `edits` maps a decoder layer, from 1, to a function. The function takes the outputs of the heads
    in one pass, `(batch, seq, head, size)`, before the output matrix. It returns them changed, with
    the same shape, dtype and device. With a KV cache, a pass holds only the new tokens.

    Raises:
        ValueError: for a layer that is not there, and for a result of another shape, dtype or
            device.
    """
    functions = edits_by_layer(edits, lambda given: decoder_layers(model, given))
    hooks = []
    for number, edit in functions.items():
        matrix, count = _output_matrix(model, number)
        hooks.append((matrix.register_forward_pre_hook, _edit_hook(number, count, edit)))
    with hooked_modules(locate(model), hooks):
        yield


def _edit_hook(layer: int, count: int, edit: Callable[[Tensor], Tensor]) -> Callable:
    def hook(matrix: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        new = run_edit(edit, _side_by_side(args[0], count), f"the heads of layer {layer}")
        return (new.flatten(-2), *args[1:]), kwargs

    return hook


@contextmanager
def ablate_heads(
    model: nn.Module,
    heads: Iterable[tuple[int, int]],
    values: Mapping[int, Tensor] | None = None,
) -> Iterator[None]:
    """Run the model without some heads, `(layer, head)` pairs, inside the `with` block.

    The outputs of these heads are replaced by 0, or by `values[layer]`, in a shape that broadcasts
    to `(batch, seq, head, size)`, such as the mean of `read_head_outputs` over other prompts.
    By hand: the lesson on attention heads.

    Raises:
        ValueError: for a layer or a head that is not there, and for values that do not fit.
    """
    chosen: dict[int, list[int]] = {}
    for pair in heads:
        if not isinstance(pair, Iterable) or len(both := [*pair]) != 2:
            raise ValueError(f"heads are pairs of a layer and a head, such as (2, 3), not {pair!r}")
        [layer] = decoder_layers(model, both[0])
        count = _output_matrix(model, layer)[1]
        if both[1] not in range(count):
            raise ValueError(f"L{layer}H{both[1]} is not there: heads are 0 to {count - 1}")
        if values is not None and layer not in values:
            raise ValueError(f"there are no values for layer {layer}, only for {list(values)}")
        chosen.setdefault(layer, []).append(both[1])

    def edit_of(layer: int) -> Callable[[Tensor], Tensor]:
        def edit(given: Tensor) -> Tensor:
            new = torch.as_tensor(0.0 if values is None else values[layer])
            gone = torch.zeros(given.shape[-2], 1, dtype=torch.bool, device=given.device)
            gone[chosen[layer]] = True
            try:
                return torch.where(gone, new.to(given).expand_as(given), given)
            except RuntimeError as error:
                raise ValueError(
                    f"the values of layer {layer}, {tuple(new.shape)}, do not fit this pass, "
                    f"(batch, seq, head, size) = {tuple(given.shape)}"
                ) from error

        return edit

    edits = {layer: edit_of(layer) for layer in chosen}
    with edit_heads(model, edits) if edits else nullcontext():  # without any head: a control
        yield


def _output_matrix(model: nn.Module, layer: int) -> tuple[nn.Module, int]:
    """The output matrix of a layer's attention, and its number of heads."""
    attention = find_part(model, "attention", layer)
    matrix = find_output_matrix(attention)
    if matrix is None:
        names = ", ".join(name for name, _ in attention.named_modules() if name)
        raise ValueError(
            f"no single output matrix was found in the attention of decoder layer {layer}; "
            f"its modules are {names}"
        )
    if hasattr(attention, "lambda_init"):
        raise ValueError(
            f"decoder layer {layer} has no single heads: each part of the output matrix's input "
            "is a difference of two heads (differential attention)"
        )
    [owner] = [part for part in attention.modules() if matrix in [*part.children()]]
    width = _attribute([matrix], ("in_features", "nx"))  # nx: in GPT-2
    size = _attribute([owner], SIZE)
    stated = _attribute([attention, *attention.children()], COUNT)  # in BERT a child has it
    count = width // size if width and size else stated
    if not count or stated not in (None, count):
        raise ValueError(
            f"the number of heads of decoder layer {layer} is not clear: its output matrix takes "
            f"{width} numbers, a head has {size}, and the number of heads is given as {stated}"
        )
    return matrix, count


def _attribute(modules: list[nn.Module], names: tuple[str, ...]) -> int | None:
    """The first attribute of these modules, under one of these names, that is a whole number."""
    values = (getattr(module, name, None) for module in modules for name in names)
    return next((value for value in values if isinstance(value, int)), None)


def _side_by_side(mixed: Tensor, count: int) -> Tensor:
    """The heads, `(batch, seq, head, size)`, in the input of the output matrix."""
    if mixed.dim() != 3:
        raise ValueError(
            f"the output matrix is given {tuple(mixed.shape)}, not (batch, seq, heads side by side)"
        )
    return mixed.unflatten(-1, (count, -1))
