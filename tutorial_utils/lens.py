"""The logit lens: what the residual stream of a layer says about the next token.

The last steps of a model, from the residual stream after its last decoder layer to the logits, are
applied to any layer (nostalgebraist 2020, "interpreting GPT: the logit lens"). By hand: lesson 05.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from .decoder_layers import locate
from .layer_hooks import aside, hooked_layers


def unembed(model: nn.Module, hidden: Tensor) -> Tensor:
    """Logits `(..., vocab)` that the model makes of a residual stream `hidden` `(..., hidden)`.

    Final norm, unembedding, and what else this model does to its logits, such as scaling or
    capping them: the model runs on one token, and `hidden` takes the place of what its last decoder
    layer gives. At layer n this gives the model's own logits. `record_activations` and
    `edit_activations` do not notice that run. Gradients only where `hidden` carries them.

    Raises ValueError for another width than the model's, and for a model that cannot do it.
    By hand: lesson 05.
    """
    where = locate(model)
    if not isinstance(hidden, Tensor) or not hidden.is_floating_point() or not hidden.dim():
        given = hidden.dtype if isinstance(hidden, Tensor) else type(hidden).__name__
        raise ValueError(f"hidden must be a tensor of floats (..., hidden), not {given}")
    if where.width not in (None, hidden.shape[-1]):
        raise ValueError(
            f"hidden must be (..., {where.width}), as wide as this model's residual stream, not "
            f"{tuple(hidden.shape)}"
        )
    rows = hidden.reshape(-1, 1, hidden.shape[-1])  # each row a prompt of one token
    token = torch.zeros(1, 1, dtype=torch.long, device=model.device)
    mask = torch.ones_like(token)  # or a model may warn that token 0 is its padding
    # `to` brings the rows to the device and the dtype of the stream of the model's last layer.
    last = {len(where.layers): lambda number, stream: rows.to(stream)}
    with torch.set_grad_enabled(hidden.requires_grad and torch.is_grad_enabled()):
        with aside(), hooked_layers(where, last):
            logits = getattr(
                model(input_ids=token, attention_mask=mask, use_cache=False), "logits", None
            )
    if logits is None or logits.shape[:-1].numel() != len(rows):
        given = "no logits" if logits is None else f"logits of shape {tuple(logits.shape)}"
        raise ValueError(
            f"{type(model).__name__} gives {given} for {len(rows)} positions of the residual "
            "stream: pass a model that AutoModelForCausalLM.from_pretrained gave"
        )
    return logits.reshape(*hidden.shape[:-1], -1)


def logit_lens(
    model: nn.Module, activations: Mapping[int, Tensor], layers: Iterable[int] | None = None
) -> dict[int, Tensor]:
    """The logits of each layer, `{layer: (batch, seq, vocab)}`, from recorded activations.

    `activations` is what `record_activations` or `read_activations` gave, `layers` are some of its
    layer numbers, all by default. With `positions="last"` in the recorder seq is 1. All logits are
    in memory at once: 33 layers, 1000 tokens and a vocabulary of 128256 take 8.5 GB in half
    precision. To keep less, call `unembed` layer by layer. By hand: lesson 05.
    """
    numbers = list(activations if layers is None else layers)
    if not numbers:
        raise ValueError("no layers were picked: pick at least one")
    hidden = [activations[number] for number in numbers]
    # One run for all of them; on a model split over devices they lie in several places.
    stacked = torch.stack([one.to(hidden[-1].device) for one in hidden])
    return dict(zip(numbers, unembed(model, stacked), strict=True))
