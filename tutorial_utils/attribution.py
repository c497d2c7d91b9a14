"""Direct logit attribution: what the embedding, each part and each head adds to a logit.

The residual stream at the last layer is a sum, and the unembedding is linear. Between them is the
final norm. Its scale is *frozen* at the value that it has in this run, so the logit is a sum too
(Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"). Only direct effects are
counted: what a part changes through later layers is not included.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import PreTrainedModel

from tutorial_utils.activations.heads import record_heads
from tutorial_utils.activations.inputs import check_options
from tutorial_utils.activations.layers import locate
from tutorial_utils.activations.parts import (
    choose,
    decoder_layers,
    find_norm_behind,
    in_order,
    record_parts,
)
from tutorial_utils.activations.record_and_edit import read_activations
from tutorial_utils.lens import unembed

NO_SUM = (
    "the residual stream of {} is not the sum of the outputs of attention and MLP in each layer, "
    "so its logits cannot be attributed to them: {}. Models like BERT, BART and OpenAI's first GPT "
    "apply a norm after each addition; the layers of other models have a third part, such as "
    "cross-attention, or scale the stream"
)


class Attribution(NamedTuple):
    """The terms of a logit, or of a difference between two logits; float32 on the CPU.

    `total = embedding + attention.sum(1) + mlp.sum(1) + bias`, up to rounding.
    """

    total: Tensor  # (batch,), as the model gives it
    embedding: Tensor  # (batch,)
    attention: Tensor  # (batch, layers), of decoder layers 1 to n
    mlp: Tensor  # (batch, layers)
    # (batch, layers, head); 0 if a layer has fewer heads than others. The difference between their
    # sum and `attention` is what the bias of the output matrix adds.
    heads: Tensor
    bias: Tensor  # (batch,), of the final norm and the unembedding


def attribute_logits(
    model: PreTrainedModel,
    input_ids: Tensor,
    token: int | Tensor,
    other: int | Tensor | None = None,
    **inputs: object,
) -> Attribution:
    """Attribute the logit of `token` as the next one, or its lead over `other`, to model parts.

    By hand: the lesson on attention heads.

    Args:
        model: a causal language model.
        input_ids: `(batch, seq)`; the logit is read at the last real token of each row.
        token: the id of a token, or one id for each row `(batch,)`.
        other: the same for a second token, whose logit is subtracted.
        inputs: further inputs of the model, such as `attention_mask`.

    Raises:
        ValueError: if the parts do not add up to the stream, because the model scales or normalises
            it in a way not known here; and if the logits are not linear in it (capped logits).
        TypeError: for an option that neither this function nor the model knows.
    """
    check_options(model, inputs, "attribute_logits", ("token", "other"))
    layers, name = locate(model).layers, type(model).__name__
    numbers = decoder_layers(model, None)
    pick = choose("last", inputs.get("attention_mask"))
    with ExitStack() as stack:  # all in one pass
        try:
            kept = {
                part: stack.enter_context(record_parts(model, part, numbers, pick, len(input_ids)))
                for part in ("attention", "mlp")
            }
        except ValueError as error:
            raise ValueError(NO_SUM.format(name, error)) from error
        apart = stack.enter_context(record_heads(model, numbers, pick))
        given: dict[str, Any] = {**inputs, "positions": "last"}
        recorded = [h[:, 0] for h in read_activations(model, input_ids, **given).values()]
    stream = torch.stack([h.float().cpu() for h in recorded])  # (layers + 1, batch, hidden)
    parts, heads = {}, []
    for part, found in kept.items():
        rows = [hidden[:, 0].float().cpu() for hidden in in_order(found, numbers).values()]
        behind = [_behind(layer, part, row) for layer, row in zip(layers, rows)]
        parts[part] = torch.stack([linear(row) for linear, row in zip(behind, rows)])
        if part == "attention":  # each: (batch, head, 1, hidden)
            each = in_order(apart, numbers).values()
            heads = [f(h[:, :, 0].transpose(0, 1).float().cpu()) for f, h in zip(behind, each)]
    _check_parts(parts["attention"] + parts["mlp"], stream, model)
    norm, gradient, at_zero, total = _last_steps(model, recorded[-1], token, other)
    linear, bias = _frozen(norm, stream[-1])

    def share(vectors: Tensor) -> Tensor:  # (any, batch, hidden) to (batch, any)
        return (linear(vectors) * gradient).sum(dim=-1).movedim(0, -1)

    most = max(map(len, heads))
    result = Attribution(
        total,
        share(stream[0]),
        share(parts["attention"]),
        share(parts["mlp"]),
        torch.stack([pad(share(each), (0, most - len(each))) for each in heads], dim=1),
        at_zero + (bias * gradient).sum(dim=-1),
    )
    _check_total(result, model)
    return result


def _tolerance(model: PreTrainedModel) -> float:
    """How far rounding may move a sum, as a share of its largest term."""
    return 1e-3 if torch.finfo(model.dtype).eps < 1e-6 else 0.03


def _check_parts(parts: Tensor, stream: Tensor, model: PreTrainedModel) -> None:
    """Raise ValueError unless attention and MLP are all that each decoder layer adds."""
    added = stream[1:] - stream[:-1]
    rounding = 2 * torch.finfo(model.dtype).eps * (stream[1:].abs() + stream[:-1].abs())
    largest = added.abs().amax(dim=-1, keepdim=True)
    gaps = ((parts - added).abs() - rounding) / largest.clamp(min=1e-30)
    worst = int(gaps.amax(dim=(1, 2)).argmax())
    if not gaps[worst].max() <= _tolerance(model):
        why = f"{gaps[worst].max():.2g} of what decoder layer {worst + 1} adds comes from neither"
        raise ValueError(NO_SUM.format(type(model).__name__, why))


def _check_total(found: Attribution, model: PreTrainedModel) -> None:
    """Raise ValueError unless the attributed terms add up to the logit."""
    parts = torch.cat([found.embedding[:, None], found.attention, found.mlp], dim=1)
    sums = parts.sum(dim=1) + found.bias
    if not (
        (sums - found.total).abs() <= _tolerance(model) * parts.abs().amax(dim=1).clamp(min=1)
    ).all():
        raise ValueError(
            f"the terms add up to {sums.tolist()}, but the model gives {found.total.tolist()}: "
            f"the logits of {type(model).__name__} are not a linear function of the output of its "
            "final norm, perhaps because they are capped"
        )


def _behind(layer: nn.Module, part: str, x: Tensor) -> Callable[[Tensor], Tensor]:
    """The norm and the factor, if any, between the output of a part and its addition to the stream.

    As a linear function; the norm's scale is frozen at the part's output `x` `(batch, hidden)`.
    """
    found = (getattr(layer, name, None) for name in ("residual_multiplier", "residual_scale"))
    factor = next((number for number in found if isinstance(number, (int, float))), 1)  # Granite
    norm = find_norm_behind(layer, part)
    linear = (lambda vectors: vectors) if norm is None else _frozen(norm, x)[0]
    return lambda vectors: factor * linear(vectors)


def _frozen(norm: nn.Module, x: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """`norm` as a linear function, with its scale frozen at `x` `(batch, hidden)`; and its bias.

    A norm may subtract the mean. Then it multiplies each coordinate by a number that depends only
    on the length of `x`. A probe of the same length, whose coordinates are 1 and -1 in turn, shows
    these numbers.
    """
    weight = next(norm.parameters(), torch.empty(0))
    device = "cpu" if weight.is_meta else weight.device  # offloaded: loaded when called

    def run(vectors: Tensor) -> Tensor:
        with torch.no_grad():
            return norm(vectors.to(device, weight.dtype)).float().cpu() - bias

    bias = torch.zeros(())
    bias = run(torch.zeros_like(x))
    moved = (run(x + x.abs().mean(dim=-1, keepdim=True)) - run(x)).abs().max()
    is_centred = moved < 0.05 * run(x).abs().max()

    def centre(vectors: Tensor) -> Tensor:
        return vectors - vectors.mean(dim=-1, keepdim=True) if is_centred else vectors

    signs = torch.ones(x.shape[-1])
    signs[1::2] = -1
    length = centre(x).square().mean(dim=-1, keepdim=True).sqrt().clamp(min=1e-30)
    probe = length * centre(signs) / centre(signs).square().mean().sqrt()
    scale = run(probe) / probe  # (batch, hidden)
    return lambda vectors: centre(vectors) * scale, bias


def _last_steps(
    model: PreTrainedModel, hidden: Tensor, token: int | Tensor, other: int | Tensor | None
) -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """Run the final norm and the unembedding.

    Returns the norm, the gradient of the logit with respect to its output `(batch, hidden)`, the
    logit for an output of 0 `(batch,)`, and the logit itself `(batch,)`.
    """
    norm: nn.Module | None = None
    leaves: list[Tensor] = []
    factor = 1.0

    def look(module: nn.Module, args: tuple, output: object) -> Tensor | None:
        """The first module whose input is the stream is the norm; make its output a leaf."""
        nonlocal norm
        if norm not in (None, module) or not args or not isinstance(output, Tensor):
            return None
        given = args[0]
        if not isinstance(given, Tensor) or given.shape[-1:] != hidden.shape[-1:]:
            return None
        if not torch.equal(given.reshape(-1, given.shape[-1])[: len(hidden)].to(hidden), hidden):
            return None
        norm = module
        leaves.append((factor * output.detach()).requires_grad_())
        return leaves[-1]

    def run() -> Tensor:
        logits = unembed(model, hidden.detach().requires_grad_()).float()
        logit = _of(token, logits)
        return logit if other is None else logit - _of(other, logits)

    inside = {id(part) for layer in locate(model).layers for part in layer.modules()}
    outside = [m for m in model.modules() if id(m) not in inside and not [*m.children()]]
    handles = [module.register_forward_hook(look) for module in outside]
    try:
        with torch.inference_mode(False), torch.enable_grad():
            logit = run()
            if norm is None:
                raise ValueError(f"no final norm was found in {type(model).__name__}")
            # `unembed` may run the model more than once: then each run has its own leaf.
            gradients = torch.autograd.grad(logit.sum(), leaves, allow_unused=True)
            factor = 0.0
            at_zero = run()
    finally:
        for handle in handles:
            handle.remove()
    gradient = next(g for g in gradients if g is not None).reshape(-1, hidden.shape[-1])
    return norm, gradient[: len(hidden)].float().cpu(), at_zero.detach().cpu(), logit.detach().cpu()


def _of(token: int | Tensor, logits: Tensor) -> Tensor:
    """The logits `(batch,)` of a token, or of one for each row of `(batch, vocab)`."""
    batch, vocab = logits.shape
    ids = torch.as_tensor(token, device=logits.device) if isinstance(token, (int, Tensor)) else None
    if ids is None or ids.is_floating_point() or ids.shape not in ((), (batch,)):
        raise ValueError(
            f"a token is given by its id, or by one id for each row, ({batch},), not as {token!r}"
        )
    if not ((ids >= 0) & (ids < vocab)).all():
        raise ValueError(f"token {token} is not in this vocabulary: ids are 0 to {vocab - 1}")
    return logits.gather(1, ids.expand(batch)[:, None])[:, 0]
