"""What the forward pass of a model takes, and what it does with it."""

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

if TYPE_CHECKING:  # at run time it would bring in all that transformers can do, in seconds
    from transformers import PreTrainedModel

# What every model may be given: what a tokenizer makes, and what goes down as **kwargs in
# transformers (where this version lists it) and in peft.
ALWAYS_KNOWN = {
    *("attention_mask", "token_type_ids", "return_dict"),
    *getattr(getattr(generic, "TransformersKwargs", None), "__annotations__", ()),
    *("adapter_names", "alora_offsets", "task_ids"),
}


def parameters(module: nn.Module) -> tuple[str, ...]:
    """The names of what a module's `forward` takes, in order."""
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
    """Raise TypeError for a name that `function` was given and the model's forward doesn't know.

    Many models take **kwargs and drop what they do not know, so that a misspelt option has no
    effect and nobody says so. `options` are the function's own, for the message.
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
    """Where the model's embedding is computed: the place for token ids."""
    embedding = cast("PreTrainedModel", model).get_input_embeddings()
    # What is offloaded lies on "meta", and accelerate's hook, or one of several, knows better.
    hook = getattr(embedding, "_hf_hook", None)
    places = [getattr(each, "execution_device", None) for each in getattr(hook, "hooks", [hook])]
    places += [weight.device for weight in embedding.parameters()]
    return torch.device(next(place for place in places if place is not None))


_ignores: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()


def ignores_mask(model: nn.Module) -> bool:
    """Whether padding on the left changes what this model computes for the tokens after it.

    So it is in RWKV, xLSTM and RecurrentGemma, which read the padding as text whatever the mask
    says: a prompt in such a batch does not give what it gives alone. Found out once for a model, by
    what its layers take, or by a forward pass over two rows that differ in their padding only.
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
        except (RuntimeError, TypeError, ValueError):  # a model that wants more than token ids
            return False
    if seen is None:
        raise ValueError(
            "the model leaves its last decoder layer out just now, as in assisted decoding with an "
            "early exit: what it computes there cannot be told by layer number"
        )
    one, other = seen[:, -1].float()
    tolerance = torch.finfo(seen.dtype).eps ** 0.5 * one.abs().max()
    return bool(((one - other).abs() > tolerance).any())
