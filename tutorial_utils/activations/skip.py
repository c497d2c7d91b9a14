"""Leave out decoder layers whose result is known, for passes that are the same up to some layer.

A pass goes through the whole model, so that masks, positions and last steps are the model's own.
Only the layers that are left out do not compute: each gives what it gave before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from tutorial_utils.activations.hooks import hooked_modules
from tutorial_utils.activations.layers import locate

Outputs = dict[int, Any]  # what each decoder layer gave, by its number, from 1


@contextmanager
def record_outputs(model: nn.Module) -> Iterator[Outputs]:
    """Keep what each decoder layer gives out in the block, whatever its form, for `skip_layers`."""
    kept: Outputs = {}

    def keep_as(number: int) -> Callable:
        def hook(layer: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
            is_many = isinstance(output, (tuple, list))
            hidden = (output[0] if is_many else output).clone()  # later layers may change it
            kept[number] = type(output)([hidden, *output[1:]]) if is_many else hidden

        return hook

    where = locate(model)
    hooks = [
        (layer.register_forward_hook, keep_as(number))
        for number, layer in enumerate(where.layers, start=1)
    ]
    with hooked_modules(where, hooks):
        yield kept


@contextmanager
def skip_layers(model: nn.Module, outputs: Outputs, below: int) -> Iterator[None]:
    """Run the model in the block without its decoder layers 1 to `below`.

    `outputs` are those of a pass over one prompt, and all rows of a pass in the block are that
    prompt. Hooks on the layers still run. What a layer hands to a later one in another way, not
    in its output, is missing: compare a pass with one that leaves out nothing.
    """

    def give_again(known: Tensor, given: Tensor) -> Tensor:
        return known.repeat(len(given), 1, 1)

    with _in_place_of(model, {i: outputs[i] for i in range(1, below + 1)}, give_again):
        yield


@contextmanager
def pass_through_layers(model: nn.Module, outputs: Outputs) -> Iterator[None]:
    """Let each decoder layer give the stream that it is given, in the form of its `outputs`."""
    with _in_place_of(model, outputs, lambda known, given: given):
        yield


@contextmanager
def _in_place_of(
    model: nn.Module, outputs: Outputs, give: Callable[[Tensor, Tensor], Tensor]
) -> Iterator[None]:
    """Put in for the forward of each of these layers: `give(known stream, given stream)`."""

    def forward_of(output: Any) -> Callable:
        def forward(*args: Any, **kwargs: Any) -> Any:
            given = args[0] if args else kwargs.get("hidden_states", next(iter(kwargs.values())))
            if isinstance(output, Tensor):
                return give(output, given)
            return type(output)([give(output[0], given), *output[1:]])

        return forward

    layers = list(locate(model).layers)
    replaced = [vars(layers[number - 1]) for number in outputs]
    before = [own.get("forward") for own in replaced]  # None except for accelerate's, and its like
    try:
        for own, output in zip(replaced, outputs.values()):
            own["forward"] = forward_of(output)
        yield
    finally:
        for own, forward in zip(replaced, before):
            own.pop("forward") if forward is None else own.update(forward=forward)
