"""The inputs of a model's forward pass: their names, their device, and the use of the mask."""

from __future__ import annotations

import difflib
import inspect
import weakref
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from transformers.utils import generic

from tutorial_utils.activations.hooks import Stop, aside, hooked_layers
from tutorial_utils.activations.layers import locate

if TYPE_CHECKING:  # importing this at run time would take seconds
    from transformers import PreTrainedModel

# Inputs that every model may get: those that a tokenizer returns, and those that transformers (if
# this version lists them) and peft pass on as **kwargs.
ALWAYS_KNOWN = {
    *("attention_mask", "token_type_ids", "return_dict"),
    *getattr(getattr(generic, "TransformersKwargs", None), "__annotations__", ()),
    *("adapter_names", "alora_offsets", "task_ids"),
}


def parameters(module: nn.Module) -> tuple[str, ...]:
    """The names of the parameters of a module's `forward`, in order."""
    return _names(type(module).forward)


@cache
def _names(forward: Callable) -> tuple[str, ...]:
    return tuple(inspect.signature(forward).parameters)[1:]


def named_arguments(module: nn.Module, args: tuple, kwargs: Mapping) -> Mapping[str, object]:
    """All arguments of a call of this module by name."""
    return {**dict(zip(parameters(module), args)), **kwargs} if args else kwargs


def check_options(
    model: nn.Module, given: Iterable[str], function: str, options: Iterable[str]
) -> None:
    """Raise TypeError for an option of `function` that the model's forward does not know.

    Many models accept **kwargs and ignore what they do not know, so a misspelt option would go
    unnoticed. `options` are the function's own options, for the message.
    """
    unknown = set(given) - ALWAYS_KNOWN - {*parameters(model)}
    if not unknown:
        return
    where = locate(model)
    inputs = {name for part in (*where.owners, *where.layers) for name in parameters(part)}
    known = [*options, *sorted(ALWAYS_KNOWN | inputs - {"args", "kwargs"})]
    for name in sorted(unknown - {*known}):
        (nearest,) = difflib.get_close_matches(name, known, 1, cutoff=0)
        raise TypeError(
            f"{function} has no option {name!r}, and {type(model).__name__} takes no such input. "
            f"The nearest known name is {nearest!r}; the options are {', '.join(options)}"
        )


def input_device(model: nn.Module) -> torch.device:
    """The device on which the model's embedding is computed, and so the device for token ids."""
    embedding = cast("PreTrainedModel", model).get_input_embeddings()
    # Offloaded weights are on "meta". Then accelerate's hook knows where they are computed with.
    hook = getattr(embedding, "_hf_hook", None)
    devices = [getattr(each, "execution_device", None) for each in getattr(hook, "hooks", [hook])]
    devices += [weight.device for weight in embedding.parameters()]
    return torch.device(next(device for device in devices if device is not None))


_ignores: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()


def ignores_mask(model: nn.Module) -> bool:
    """Whether padding on the left changes what this model computes for the tokens after it.

    RWKV, xLSTM and RecurrentGemma ignore the mask and read the padding as text, so in a padded
    batch a prompt gets other activations than alone. This is found out once per model: from the
    parameters of its layers, or by a forward pass over two rows that differ only in their padding.
    """
    known = _ignores.get(model)
    if known is None:
        known = _padding_matters(model)
        if not model.training:
            _ignores[model] = known
    return known


@torch.no_grad()
def _padding_matters(model: nn.Module) -> bool:
    where = locate(model)
    takes_mask = any("mask" in name for layer in where.layers for name in parameters(layer))
    if model.training or not takes_mask:  # dropout would make any two rows differ
        return not takes_mask

    def see(number: int, hidden: Tensor) -> None:
        raise Stop(hidden)

    seen: Tensor | None = None
    ids = torch.tensor([[1, 3], [2, 3]], device=input_device(model))
    mask = torch.tensor([[0, 1], [0, 1]], device=ids.device)
    with aside(), hooked_layers(where, {len(where.layers): see}):
        try:
            model(input_ids=ids, attention_mask=mask, use_cache=False)
        except Stop as reached:
            seen = reached.args[0]
        except (RuntimeError, TypeError, ValueError):  # the model needs other inputs too
            return False
    if seen is None:
        raise ValueError(
            "the model skips its last decoder layer at the moment, as in assisted decoding with an "
            "early exit: such a pass cannot be recorded by layer number"
        )
    one, other = seen[:, -1].float()
    tolerance = torch.finfo(seen.dtype).eps ** 0.5 * one.abs().max()
    return bool(((one - other).abs() > tolerance).any())
