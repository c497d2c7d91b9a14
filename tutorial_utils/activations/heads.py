"""Attention heads: where they look, what each adds to the residual stream, and without some.

Decoder layers are numbered from 1, heads from 0. By hand: the lessons on the inside of a decoder
layer and on attention heads. Heads are taken where they still lie side by side, at the *input* of
the matrix that puts them together (`o_proj`). Its output mixes them: no slice of it is a head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from tutorial_utils.activations.hooks import hooked_layers
from tutorial_utils.activations.layers import find_decoder_layers, layer_numbers, locate
from tutorial_utils.activations.parts import find_output_matrix, find_part

NO_PATTERN = (
    "decoder layer {} gave no attention pattern (batch, head, query, key), rows of weights from 0 "
    "to 1: {}. Its attention is no softmax over keys, or its code keeps the pattern to itself"
)


def read_attention(
    model: nn.Module,
    input_ids: Tensor,
    layers: int | slice | Iterable[int] | None = None,
    **inputs: object,
) -> dict[int, Tensor]:
    """Where each head looks: `{layer: pattern (batch, head, query, key)}`, rows of weights.

    The model runs once on `input_ids` `(batch, seq)` with its attention written out in PyTorch
    ("eager"), since faster code never makes the pattern; then its settings are as they were.

    Args:
        model: a causal language model.
        input_ids: `(batch, seq)`.
        layers: numbers of decoder layers, from 1; None means all that have attention.
        inputs: what else the model takes, such as `attention_mask`.

    Raises:
        ValueError: for a layer that is not there, or whose attention gives no pattern.
    """
    patterns: dict[int, Tensor] = {}
    with ExitStack() as stack, torch.no_grad():
        for layer in _layers_with_attention(model, layers):
            module = find_part(model, "attention", layer)
            stack.callback(module.register_forward_hook(_keep_pattern(patterns, layer)).remove)
        stack.enter_context(_eager_attention(model))
        stack.enter_context(hooked_layers(locate(model), {}))
        model(input_ids=input_ids, **{"use_cache": False, **inputs})
    return patterns


def _keep_pattern(patterns: dict[int, Tensor], layer: int) -> Callable:
    def hook(module: nn.Module, args: tuple, output: object) -> None:
        given = output[1:] if isinstance(output, (tuple, list)) else ()
        square = [p for p in given if isinstance(p, Tensor) and p.dim() == 4]
        if not square:
            raise ValueError(NO_PATTERN.format(layer, "there was none"))
        low, high = square[0].min(), square[0].sum(dim=-1).max()
        if low < 0 or high > 1.01 or square[0].shape[2] != output[0].shape[-2]:
            seen = f"shape {tuple(square[0].shape)}, least {low:.3g}, largest row sum {high:.3g}"
            raise ValueError(NO_PATTERN.format(layer, seen))
        patterns[layer] = square[0].detach()

    return hook


@contextmanager
def _eager_attention(model: nn.Module) -> Iterator[None]:
    """Run the model with attention in plain PyTorch; its settings come back afterwards."""
    configs = {
        id(module.config): module.config for module in model.modules() if hasattr(module, "config")
    }
    before = [(c, getattr(c, "_attn_implementation", None)) for c in configs.values()]
    try:
        for config, _ in before:
            config._attn_implementation = "eager"
        yield
    finally:
        for config, name in before:  # a whole sets its parts too: it comes first
            config._attn_implementation = name


def read_heads(
    model: nn.Module,
    input_ids: Tensor,
    layers: int | slice | Iterable[int],
    *,
    positions: Iterable[int] | None = None,
    **inputs: object,
) -> dict[int, Tensor]:
    """What each head adds to the residual stream: `{layer: (batch, head, positions, hidden)}`.

    The heads of a layer add up to what its attention gives, less the bias of the output matrix.
    All layers of an 8B model at 512 tokens are 4 GB: so `layers` must be said, and `positions`
    (column numbers, all by default) should be.

    Raises:
        ValueError: for a layer that is not there, and where the heads do not add up, as behind an
            attention that does more with them than one matrix.
    """
    kept: dict[int, Tensor] = {}
    where = None if positions is None else list(positions)
    with ExitStack() as stack, torch.no_grad():
        for layer in _layers_with_attention(model, layers):
            matrix, heads = _output_matrix(model, layer)
            hook = _keep_heads(kept, layer, heads, where)
            stack.callback(matrix.register_forward_hook(hook).remove)
        stack.enter_context(hooked_layers(locate(model), {}))
        model(input_ids=input_ids, **{"use_cache": False, **inputs})
    return kept


def _keep_heads(
    kept: dict[int, Tensor], layer: int, heads: int, where: list[int] | None
) -> Callable:
    busy = False  # the matrix is called again below, by this hook

    def hook(matrix: nn.Module, args: tuple, output: Tensor) -> None:
        nonlocal busy
        if busy:
            return
        busy = True
        mixed = args[0] if where is None else args[0][:, where]  # (batch, positions, heads * size)
        own = mixed.unflatten(-1, (heads, -1)).movedim(-2, 1)  # (batch, head, positions, size)
        alone = torch.zeros(*own.shape[:-1], heads, own.shape[-1]).to(own)
        for head in range(heads):
            alone[:, head, :, head] = own[:, head]
        zero = torch.zeros_like(mixed[:1, :1])
        # The matrix itself is asked, whatever it is: Conv1D, quantised, with an adapter.
        kept[layer] = matrix(alone.flatten(-2)) - matrix(zero)
        whole = output if where is None else output[:, where]
        gap = (kept[layer].sum(dim=1) + matrix(zero) - whole).abs().max()
        busy = False
        if not gap <= 0.05 * whole.abs().max() + 1e-4:
            raise ValueError(f"the heads of layer {layer} do not add up: {gap:.2g} is missing")

    return hook


@contextmanager
def edit_heads(model: nn.Module, edits: Mapping[int, Callable[[Tensor], Tensor]]) -> Iterator[None]:
    """Change what heads give while the model runs inside the `with` block.

        with edit_heads(model, {2: lambda heads: heads * keep}):
            model(**inputs)

    `edits` has a function for each decoder layer, from 1. It takes the heads of one pass before
    they are put together, `(batch, seq, head, size)`, and returns them changed.

    Raises:
        ValueError: for a layer that is not there, and for a result of another shape.
    """
    with ExitStack() as stack:
        for layer, edit in edits.items():
            [number] = _layers_with_attention(model, layer)
            matrix, heads = _output_matrix(model, number)
            hook = _edit_hook(number, heads, edit)
            stack.callback(matrix.register_forward_pre_hook(hook).remove)
        stack.enter_context(hooked_layers(locate(model), {}))
        yield


def _edit_hook(layer: int, heads: int, edit: Callable[[Tensor], Tensor]) -> Callable:
    def hook(matrix: nn.Module, args: tuple) -> tuple:
        given = args[0].unflatten(-1, (heads, -1))  # (batch, seq, head, size)
        new = edit(given)
        if not isinstance(new, Tensor) or new.shape != given.shape:
            found = tuple(new.shape) if isinstance(new, Tensor) else type(new).__name__
            raise ValueError(
                f"the edit of the heads of layer {layer} returned {found} instead of "
                f"(batch, seq, head, size) = {tuple(given.shape)}"
            )
        return (new.to(given).flatten(-2), *args[1:])

    return hook


@contextmanager
def ablate_heads(
    model: nn.Module,
    heads: Iterable[tuple[int, int]],
    values: Mapping[int, Tensor] | None = None,
) -> Iterator[None]:
    """Run the model without some heads, `(layer, head)` pairs, inside the `with` block.

    What these heads give is replaced by 0, or by `values[layer]`, of a shape that fits
    `(batch, seq, head, size)`: means over other prompts, say.
    """
    chosen: dict[int, list[int]] = {}
    for layer, head in heads:
        count = _output_matrix(model, layer)[1]
        if not 0 <= head < count:
            raise ValueError(f"L{layer}H{head} is not there: heads are 0 to {count - 1}")
        chosen.setdefault(layer, []).append(head)

    def edit_of(layer: int) -> Callable[[Tensor], Tensor]:
        def edit(given: Tensor) -> Tensor:
            new, numbers = given.clone(), chosen[layer]
            if values is None:
                new[:, :, numbers] = 0
            else:
                new[:, :, numbers] = values[layer].to(given).expand_as(given)[:, :, numbers]
            return new

        return edit

    with edit_heads(model, {layer: edit_of(layer) for layer in chosen}):
        yield


def _layers_with_attention(
    model: nn.Module, layers: int | slice | Iterable[int] | None
) -> list[int]:
    count = len(find_decoder_layers(model))
    numbers = layer_numbers(layers, count)
    if layers is None:
        numbers = [i for i in numbers if i and _has_attention(model, i)]
    if 0 in numbers:
        raise ValueError(
            f"layer 0 is the embedding output and has no heads: decoder layers are 1 to {count}"
        )
    if not numbers:
        raise ValueError("no decoder layer of this model has a part that is known as attention")
    return numbers


def _has_attention(model: nn.Module, layer: int) -> bool:
    try:
        find_part(model, "attention", layer)
    except ValueError:
        return False
    return True


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
    config = getattr(attention, "config", None) or model.config.get_text_config(decoder=True)
    told = [getattr(attention, name, None) for name in ("num_heads", "num_attention_heads")]
    heads = next((n for n in told if isinstance(n, int)), config.num_attention_heads)
    return matrix, heads
