"""The logit lens: what the residual stream of a layer says about the next token.

The last steps of a model, from the residual stream after its last decoder layer to the logits, are
applied to any layer (nostalgebraist 2020, "interpreting GPT: the logit lens"). By hand: the
lesson on the logit lens.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tutorial_utils.activations.hooks import aside, check_stream, hooked_layers
from tutorial_utils.activations.inputs import input_device
from tutorial_utils.activations.layers import DecoderLayers, locate
from tutorial_utils.activations.skip import Outputs, pass_through_layers, record_outputs


def unembed(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """Logits `(..., vocab)` that the model makes of a residual stream `hidden` `(..., hidden)`.

    Final norm, unembedding, and whatever else this model does to its logits, such as scaling or
    capping them: the model runs on one token, without its decoder layers, and `hidden` takes the
    place of what the last of them gives. At layer n this gives the model's own logits.
    `record_activations` and `edit_activations` do not notice that run. Gradients only where
    `hidden` carries them.

    Raises ValueError for a width other than the model's, and for a model that cannot do it.
    By hand: the lesson on the logit lens.
    """
    where = locate(model)
    if not isinstance(hidden, Tensor) or not hidden.is_floating_point() or not hidden.dim():
        given = hidden.dtype if isinstance(hidden, Tensor) else type(hidden).__name__
        raise ValueError(f"hidden must be a tensor of floats (..., hidden), not {given}")
    if where.width not in (None, hidden.shape[-1]) or not hidden.numel():
        raise ValueError(
            f"hidden must have the shape (..., {where.width}), as wide as this model's residual "
            f"stream, and must not be empty; its shape is {tuple(hidden.shape)}"
        )
    count = hidden[..., 0].numel()
    rows = hidden.reshape(-1, 1, hidden.shape[-1])  # each row a prompt of one token
    # At least two rows: with one, a model that also uses its input token would go unnoticed.
    rows = rows.expand(max(count, 2), 1, -1)
    with torch.set_grad_enabled(hidden.requires_grad and torch.is_grad_enabled()):
        try:
            with aside(), pass_through_layers(model, _forms_of(model)):
                logits = _last_steps(model, where, rows, tokens=[0])
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError:  # a few models give their output the shape of their input ids
            logits = _last_steps_with_as_many_tokens(model, where, rows)
    return logits.reshape(len(rows), -1)[:count].reshape(*hidden.shape[:-1], -1)


# In which form each decoder layer of a model gives the stream.
_forms: weakref.WeakKeyDictionary[nn.Module, Outputs] = weakref.WeakKeyDictionary()


def _forms_of(model: PreTrainedModel) -> Outputs:
    if model not in _forms:
        ids = torch.tensor([[0]], device=input_device(model))
        with torch.no_grad(), aside(), record_outputs(model) as outputs:
            model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
        _forms[model] = outputs
    return _forms[model]


def _last_steps(
    model: PreTrainedModel, where: DecoderLayers, rows: Tensor, tokens: list[int]
) -> Tensor:
    """Run the model on prompts of one token each, with `rows` in place of layer n's output."""
    ids = torch.tensor(tokens, device=input_device(model))[:, None]
    mask = torch.ones_like(ids)  # or a model may warn that token 0 is its padding

    def put_in(number: int, stream: Tensor) -> Tensor:
        check_stream(number, stream, where.width)
        return rows.to(stream)  # its device and its dtype

    with aside(), hooked_layers(where, {len(where.layers): put_in}):
        logits = getattr(model(input_ids=ids, attention_mask=mask, use_cache=False), "logits", None)
    if logits is None or logits.shape[:-1].numel() != len(rows):
        given = "no logits" if logits is None else f"logits of shape {tuple(logits.shape)}"
        raise ValueError(
            f"{type(model).__name__} gives {given}, and not one row for each position of the "
            "residual stream: pass a model that AutoModelForCausalLM.from_pretrained gave"
        )
    return logits


def _last_steps_with_as_many_tokens(
    model: PreTrainedModel, where: DecoderLayers, rows: Tensor
) -> Tensor:
    """Run twice, on different tokens: what the tokens say must not reach the logits."""
    name = type(model).__name__
    try:
        logits, again = (_last_steps(model, where, rows, [i] * len(rows)) for i in (0, 1))
    except RuntimeError as error:
        raise ValueError(f"the last steps of {name} do not run on one token: {error}") from error
    if not torch.allclose(logits, again, equal_nan=True):
        raise ValueError(
            f"the logits of {name} are made of more than the residual stream of its last layer, so "
            "that no other layer can take its place: the logit lens does not work here"
        )
    return logits


def logit_lens(
    model: PreTrainedModel, activations: Mapping[int, Tensor], layers: Iterable[int] | None = None
) -> dict[int, Tensor]:
    """The logits of each layer, `{layer: (batch, seq, vocab)}`, from recorded activations.

    `activations` is what `record_activations` or `read_activations` gave, `layers` are some of its
    layer numbers, all by default. With `positions="last"` in the recorder seq is 1. All logits are
    in memory at once: 33 layers, 1000 tokens and a vocabulary of 128256 take 8.5 GB in half
    precision. Where that is too much, `lens_choices` keeps the best few.
    By hand: the lesson on the logit lens.
    """
    stacked = _stacked(activations, layers)
    return dict(zip(stacked, unembed(model, torch.stack([*stacked.values()])), strict=True))


def lens_choices(
    model: PreTrainedModel,
    activations: Mapping[int, Tensor],
    layers: Iterable[int] | None = None,
    *,
    k: int = 5,
) -> tuple[Tensor, Tensor]:
    """The `k` most probable tokens at each layer and position: their probabilities and their ids.

    Both are `(layers, batch, seq, k)`, best first, on the CPU: float32, and whole numbers. Where
    the logits are not finite the probabilities are NaN and the ids -1. In memory at once are the
    logits of at most 512 positions, fewer where a vocabulary is large: 64 MB in float32.
    By hand: the lesson on the logit lens.
    """
    streams = [activations[i] for i in _picked(activations, layers)]
    vocab = model.config.get_text_config(decoder=True).vocab_size
    size = max(1, min(512, 2**24 // vocab))  # positions
    together = max(1, size // streams[0][..., 0].numel())  # layers
    best = []
    for first in range(0, len(streams), together):
        some = [stream.to(streams[-1].device) for stream in streams[first : first + together]]
        for rows in torch.stack(some).flatten(0, -2).split(size):
            probs, ids = _best(unembed(model, rows).detach().float(), k)
            best.append((probs.cpu(), ids.cpu()))
    shape = (len(streams), *streams[0].shape[:-1], k)
    probs, ids = (torch.cat(parts).reshape(shape) for parts in zip(*best, strict=True))
    return probs, ids.masked_fill(probs.isnan(), -1)


def _best(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """As `logits.softmax(dim=-1).topk(k)` on (rows, vocab), but faster; writes over the logits.

    To make room for as many probabilities would take longer than the softmax. And the k best words
    lie in the k blocks of words whose best words are best, so that few blocks are searched.
    """
    probs = torch.softmax(logits, dim=-1, out=logits)
    size = math.gcd(probs.shape[-1], 256)
    blocks = probs.unflatten(-1, (-1, size))  # (rows, blocks, size)
    some = blocks.amax(dim=-1).topk(min(k, blocks.shape[1])).indices
    values, places = blocks.take_along_dim(some[..., None], dim=1).flatten(1).topk(k)
    return values, some.gather(1, places // size) * size + places % size


def _stacked(activations: Mapping[int, Tensor], layers: Iterable[int] | None) -> dict[int, Tensor]:
    """The picked layers on one device: on a model that is split over devices they lie on many."""
    numbers = _picked(activations, layers)
    return {i: activations[i].to(activations[numbers[-1]].device) for i in numbers}


def _picked(activations: Mapping[int, Tensor], layers: Iterable[int] | None) -> list[int]:
    numbers = list(activations if layers is None else layers)
    if not numbers:
        raise ValueError("no layers were picked: pick at least one")
    return numbers


def answer_layer(first_choices: Tensor, answers: Tensor) -> Tensor:
    """The first layer at which the answer is the first choice, `(...)`; -1 where it is at none.

    `first_choices` `(layers, ...)` are token ids, row i of layer i, -1 where there is none;
    `answers` `(...)` the ids to find. By hand: the lesson on the logit lens.
    """
    if first_choices.shape[1:] != answers.shape or not len(first_choices):
        raise ValueError(
            f"first_choices is (layers, ...) for answers (...), here {tuple(first_choices.shape)} "
            f"for {tuple(answers.shape)}"
        )
    if first_choices.is_floating_point() or answers.is_floating_point():
        raise ValueError(
            f"first_choices and answers are token ids, whole numbers, not {first_choices.dtype} "
            f"and {answers.dtype}: the first choice of logits is logits.argmax(dim=-1)"
        )
    found = (first_choices == answers.to(first_choices.device)) & (first_choices >= 0)
    return torch.where(found.any(dim=0), found.int().argmax(dim=0), -1)


def entropy(logits: Tensor) -> Tensor:
    """Entropy of softmax(logits) in bits, `(..., vocab)` to `(...)`, float32.

    0 is certain, log2(vocab) is knowing nothing; NaN where logits are NaN or +inf.
    By hand: the lesson on the logit lens.
    """
    log_p = logits.float().log_softmax(dim=-1)
    p = log_p.exp()
    return -torch.where(p == 0, 0, p * log_p).sum(dim=-1) / math.log(2)  # NaN is not 0


def kl_divergence(logits: Tensor, other: Tensor) -> Tensor:
    """D(p ‖ q) = Σ p log2(p / q) in bits, of p = softmax(logits) and q = softmax(other).

    Both `(..., vocab)`, to `(...)`, float32; infinite where q is 0 and p is not, NaN where
    logits are NaN or +inf. What it costs, in bits for each token, to take q for p (Kullback and
    Leibler 1951, doi:10.1214/aoms/1177729694). By hand: the lesson on the logit lens.
    """
    log_p, log_q = (z.float().log_softmax(dim=-1) for z in (logits, other))
    p = log_p.exp()
    return torch.where(p == 0, 0, p * (log_p - log_q)).sum(dim=-1) / math.log(2)
