"""Direct logit attribution: what the embedding, each part and each head adds to a logit.

The residual stream at the last layer is a sum, and the unembedding is linear. Only the final norm
stands between them: its scale is *frozen* at the value that it has in this run, and so the logit is
a sum too (Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"). This is the
direct effect only: what a part changes by way of later layers is not in it.
By hand: the lesson on attention heads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tutorial_utils.activations.heads import read_heads
from tutorial_utils.activations.layers import locate
from tutorial_utils.activations.parts import find_norm_behind
from tutorial_utils.activations.record_and_edit import read_activations
from tutorial_utils.lens import unembed
from tutorial_utils.activations.parts import read_parts

# How far a sum may be from what it should be, as a share of the largest number in it: rounding.
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}


class Attribution(NamedTuple):
    """What adds up to a logit, or to the lead of one token over another; float32 on the CPU.

    `total = embedding + attention.sum(1) + mlp.sum(1) + bias`, to rounding.
    """

    total: Tensor  # (batch,), as the model gives it
    embedding: Tensor  # (batch,)
    attention: Tensor  # (batch, layers), of decoder layers 1 to n
    mlp: Tensor  # (batch, layers)
    heads: Tensor  # (batch, layers, head); what is left of `attention` is its output's bias
    bias: Tensor  # (batch,), of the final norm and the unembedding


def attribute_logits(
    model: PreTrainedModel,
    input_ids: Tensor,
    token: int,
    other: int | None = None,
    **inputs: object,
) -> Attribution:
    """Attribute the logit of `token` as the next one, or its lead over `other`, to its sources.

    Args:
        model: a causal language model.
        input_ids: `(batch, seq)`; the logit is read at the last real token of each row.
        token: the id of a token.
        other: the id of a second one, whose logit is subtracted.
        inputs: what else the model takes, such as `attention_mask`.

    Raises:
        ValueError: where the parts do not add up to the stream (a scale or a norm of another kind
            behind them), and where the logits are not linear in it (capped logits).
    """
    layers = locate(model).layers
    n = len(layers)
    recorded = read_activations(model, input_ids, positions="last", **inputs)
    stream = torch.stack(
        [recorded[i][:, 0].float().cpu() for i in range(n + 1)]
    )  # (n + 1, batch, hidden)
    mask = inputs.get("attention_mask")
    where = _last_columns(input_ids, mask if isinstance(mask, Tensor) else None)
    parts, heads = {}, {}
    for part in ("attention", "mlp"):
        given = read_parts(model, input_ids, part, **inputs)
        rows = [_at(given[i], where) for i in range(1, n + 1)]
        behind = [_frozen(find_norm_behind(layers[i], part), rows[i])[0] for i in range(n)]
        parts[part] = torch.stack([linear(row) for linear, row in zip(behind, rows)])
        if part == "attention":
            for i, linear in enumerate(behind, start=1):
                each = read_heads(model, input_ids, [i], **inputs)[i]  # (batch, head, seq, hidden)
                heads[i] = torch.stack([linear(_at(h, where)) for h in each.unbind(1)], dim=1)
    _check_sum(parts["attention"] + parts["mlp"], stream[1:] - stream[:-1], _tolerance(model))
    norm, gradient, at_zero, total = _last_steps(model, recorded[n][:, 0], token, other)
    linear, bias = _frozen(norm, stream[n])

    def share(vectors: Tensor) -> Tensor:  # (..., batch, hidden) to (..., batch)
        return (linear(vectors) * gradient).sum(dim=-1)

    result = Attribution(
        total,
        share(stream[0]),
        share(parts["attention"]).T,
        share(parts["mlp"]).T,
        torch.stack([share(heads[i].transpose(0, 1)).T for i in range(1, n + 1)], dim=1),
        at_zero + (bias * gradient).sum(dim=-1),
    )
    found = result.embedding + result.attention.sum(1) + result.mlp.sum(1) + result.bias
    largest = torch.stack([result.embedding, *result.attention.T, *result.mlp.T]).abs().max()
    if not (found - total).abs().max() <= _tolerance(model) * max(largest, 1):
        raise ValueError(
            f"what was found adds up to {found.tolist()}, and the model's own is {total.tolist()}: "
            f"the logits of {type(model).__name__} are no linear function of the stream, as where "
            "they are capped"
        )
    return result


def _tolerance(model: PreTrainedModel) -> float:
    return TOLERANCE.get(model.dtype, 0.03)


def _check_sum(parts: Tensor, added: Tensor, tolerance: float) -> None:
    """Raise ValueError unless attention and MLP are all that each decoder layer adds."""
    gaps = (parts - added).abs().amax(dim=(1, 2)) / added.abs().amax(dim=(1, 2))
    worst = int(gaps.argmax())
    if not gaps[worst] <= tolerance:
        raise ValueError(
            f"decoder layer {worst + 1} adds something else than what its attention and its MLP "
            f"give: {gaps[worst]:.0%} of it is left over. There is a scale or a norm behind them, "
            "or a third part, that is not known here"
        )


def _last_columns(input_ids: Tensor, mask: Tensor | None) -> Tensor:
    """The column of the last real token of each row, `(batch,)`."""
    batch, seq = input_ids.shape
    if mask is None:
        return torch.full((batch,), seq - 1)
    return (seq - 1 - mask.flip(1).int().argmax(dim=1)).cpu()


def _at(hidden: Tensor, columns: Tensor) -> Tensor:
    """One token of each row of `(batch, seq, hidden)`: `(batch, hidden)`, float32 on the CPU."""
    return hidden[torch.arange(len(hidden)), columns.to(hidden.device)].float().cpu()


def _frozen(norm: nn.Module | None, x: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """What `norm` does to parts of `x` `(batch, hidden)`, at the scale that it has for `x`; its bias.

    A norm takes the mean off, or does not, and multiplies by numbers that depend on the length of
    `x` only. A vector of that length, of 1 and -1 in turn, shows these numbers.
    """
    if norm is None:
        return lambda vectors: vectors, torch.zeros(())
    weight = next(norm.parameters(), torch.empty(0))

    def run(vectors: Tensor) -> Tensor:
        with torch.no_grad():
            return norm(vectors.to(weight)).float().cpu()

    centred = torch.allclose(run(x + x.abs().mean()), run(x), rtol=1e-2, atol=1e-2)

    def centre(vectors: Tensor) -> Tensor:
        return vectors - vectors.mean(dim=-1, keepdim=True) if centred else vectors

    signs = torch.ones(x.shape[-1])
    signs[1::2] = -1
    length = centre(x).square().mean(dim=-1, keepdim=True).sqrt()
    probe = length * centre(signs) / centre(signs).square().mean().sqrt()
    bias = run(torch.zeros_like(x))
    scale = (run(probe) - bias) / probe  # (batch, hidden)
    return lambda vectors: centre(vectors) * scale, bias


def _last_steps(
    model: PreTrainedModel, hidden: Tensor, token: int, other: int | None
) -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """The final norm; the gradient of the logit behind it; the logit where that is 0; the logit."""
    norm: nn.Module | None = None
    leaf: Tensor | None = None
    factor = 1.0

    def look(module: nn.Module, args: tuple, output: object) -> Tensor | None:
        """The first module that is given the stream itself is the norm; its output is a leaf."""
        nonlocal norm, leaf
        if norm not in (None, module) or not args or not isinstance(output, Tensor):
            return None
        given = (
            args[0].reshape(-1, args[0].shape[-1]) if isinstance(args[0], Tensor) else hidden[:0]
        )
        if given.shape[1:] != hidden.shape[1:] or not torch.equal(given[: len(hidden)], hidden):
            return None
        norm, leaf = module, (factor * output.detach()).requires_grad_()
        return leaf

    def run() -> Tensor:
        with torch.enable_grad():
            logits = unembed(model, hidden.detach().requires_grad_()).float()
        return logits[:, token] - (0 if other is None else logits[:, other])

    inside = {id(part) for layer in locate(model).layers for part in layer.modules()}
    outside = [m for m in model.modules() if id(m) not in inside and not [*m.children()]]
    handles = [module.register_forward_hook(look) for module in outside]
    try:
        logit = run()
        if norm is None or leaf is None:
            raise ValueError(f"no final norm was found in {type(model).__name__}")
        [gradient] = torch.autograd.grad(logit.sum(), leaf)
        factor = 0.0
        at_zero = run()
    finally:
        for handle in handles:
            handle.remove()
    gradient = gradient.reshape(-1, gradient.shape[-1])[: len(hidden)]
    return norm, gradient.float().cpu(), at_zero.detach().cpu(), logit.detach().cpu()
