"""Attention heads: what each adds to the residual stream, and the model without some of them.

Decoder layers are numbered from 1, heads from 0. Heads are taken where they still lie side by side,
at the *input* of the matrix that puts them together (`o_proj`). Its output mixes them: no slice of
it is a head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from tutorial_utils.activations.hooks import hooked_modules, run_edit
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

# What an attention calls the width of a head's output, or how many heads it has.
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

    The heads of a layer add up to what its attention gives, less the bias of the output matrix.
    All layers of an 8B model at 512 tokens are 4 GB in half precision: so `layers` must be said,
    and `positions` (as in `record_activations`: column numbers, or "last") should be.

    Raises:
        ValueError: for a layer that is not there, and where the heads do not add up, as behind an
            attention that does more with them than one matrix.
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
    """What heads give before they are put together: `{layer: (batch, positions, head, size)}`.

    These are the numbers that `edit_heads` changes and that `ablate_heads` takes as values.
    Options and errors are those of `read_heads`.
    """
    check_options(model, inputs, "read_head_outputs", OPTIONS)
    return _read(model, input_ids, layers, positions, inputs, lambda heads, *_: heads)


def _read(
    model: nn.Module,
    input_ids: Tensor,
    layers: Layers,
    positions: Positions,
    inputs: dict,
    look: Callable[[Tensor, Tensor, int, Callable[[Tensor], Tensor]], Tensor],
) -> dict[int, Tensor]:
    """What `look` makes of the heads, the output, the number and the matrix of each layer."""
    kept: dict[int, Tensor] = {}
    pick = choose(positions, inputs.get("attention_mask"))

    def hook_of(layer: int, count: int) -> Callable:
        def hook(matrix: nn.Module, args: tuple, kwargs: dict, output: Tensor) -> None:
            def run(mixed: Tensor) -> Tensor:
                # The matrix itself is asked, whatever it is: Conv1D, quantised, with an adapter.
                # Its hooks are left out: they have done their work on what comes in here.
                return matrix.forward(mixed, *args[1:], **kwargs)

            kept[layer] = look(pick(_side_by_side(args[0], count)), pick(output), layer, run)

        return hook

    numbers = decoder_layers(model, layers)
    found = [(number, *_output_matrix(model, number)) for number in numbers]
    hooks = [(matrix.register_forward_hook, hook_of(n, count)) for n, matrix, count in found]
    with hooked_modules(locate(model), hooks):
        run_up_to(max(numbers), model, input_ids, positions, inputs)
    return in_order(kept, numbers)


def _apart(heads: Tensor, whole: Tensor, layer: int, run: Callable[[Tensor], Tensor]) -> Tensor:
    """What each head adds to `whole` `(batch, positions, hidden)`, on its own."""
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
    if not gap <= 0.05 * largest:  # int8 kernels round as much as that
        raise ValueError(
            f"the heads of decoder layer {layer} do not add up to what its attention gives: up to "
            f"{gap:.2g} is missing, beside numbers up to {largest:.2g}"
        )
    return apart


@contextmanager
def edit_heads(model: nn.Module, edits: Mapping[int, Callable[[Tensor], Tensor]]) -> Iterator[None]:
    """Change what heads give while the model runs inside the `with` block.

    Example::

        with edit_heads(model, {2: lambda heads: heads * keep}):
            model(**inputs)

    `edits` has a function for each decoder layer, from 1. It takes the heads of one pass before
    they are put together, `(batch, seq, head, size)`, and returns them changed, of the same shape,
    dtype and device. With a KV cache a pass holds the new tokens only.

    Raises:
        ValueError: for a layer that is not there, and for a result of another kind.
    """
    if not isinstance(edits, Mapping) or not all(callable(edit) for edit in edits.values()):
        raise ValueError(f"edits are given as {{layer number: function}}, not as {edits!r}")
    numbers = decoder_layers(model, edits)
    if len(numbers) < len(edits):
        raise ValueError(f"two of these layers are the same one: {list(edits)}")
    hooks = []
    for number, edit in zip(numbers, edits.values()):
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

    What these heads give is replaced by 0, or by `values[layer]`, of a shape that fits
    `(batch, seq, head, size)`: means over what `read_head_outputs` gave for other prompts, say.

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
    with edit_heads(model, edits) if edits else nullcontext():  # no head at all is a control
        yield


def _output_matrix(model: nn.Module, layer: int) -> tuple[nn.Module, int]:
    """The matrix that puts the heads of a layer together, and how many heads there are."""
    attention = find_part(model, "attention", layer)
    matrix = find_output_matrix(attention)
    if matrix is None:
        names = ", ".join(name for name, _ in attention.named_modules() if name)
        raise ValueError(
            f"the attention of decoder layer {layer} has no single output matrix that is known; "
            f"its modules are {names}"
        )
    if hasattr(attention, "lambda_init"):
        raise ValueError(
            f"the heads of decoder layer {layer} are not put together one by one: each part of the "
            "output matrix's input is a difference of two (differential attention)"
        )
    [owner] = [part for part in attention.modules() if matrix in [*part.children()]]
    width, size = _told([matrix], ("in_features", "nx")), _told([owner], SIZE)  # nx: GPT-2's
    told = _told([attention, *attention.children()], COUNT)  # in BERT a child says it
    counted = width // size if width and size else told
    if not counted or told not in (None, counted):
        raise ValueError(
            f"how many heads decoder layer {layer} has is not clear: its output matrix takes "
            f"{width} numbers, a head has {size}, and the number of heads is given as {told}"
        )
    return matrix, counted


def _told(modules: list[nn.Module], names: tuple[str, ...]) -> int | None:
    """The first whole number that one of these modules has under one of these names."""
    values = (getattr(module, name, None) for module in modules for name in names)
    return next((value for value in values if isinstance(value, int)), None)


def _side_by_side(mixed: Tensor, count: int) -> Tensor:
    """The heads in what goes into the output matrix: `(batch, seq, head, size)`."""
    if mixed.dim() != 3:
        raise ValueError(
            f"the output matrix is given {tuple(mixed.shape)}, not (batch, seq, heads side by side)"
        )
    return mixed.unflatten(-1, (count, -1))
