"""Activation patching: which activation, put into another run, changes the answer?

Two prompts with the same number of tokens are run, and an activation of one is put into the run of
the other (Vig et al. 2020, arXiv:2004.12265; Meng et al. 2022, arXiv:2202.05262). By hand: the
lesson on patching and steering. Attribution patching estimates the same from gradients (Nanda 2023,
"Attribution Patching: Activation Patching At Industrial Scale"; Kramár et al. 2024,
arXiv:2403.00745).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import cast

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tutorial_utils.activations.inputs import input_device
from tutorial_utils.activations.layers import layer_numbers, locate
from tutorial_utils.activations.parts import find_part, hooked_part
from tutorial_utils.activations.record_and_edit import edit_activations, record_activations
from tutorial_utils.activations.skip import Outputs, record_outputs, skip_layers
from tutorial_utils.decoding import forward_pass, pass_inputs
from tutorial_utils.encoding import prompt_ids

Score = Callable[[Tensor], Tensor]


def patch_each(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    source: Mapping[int, Tensor],
    score: Score,
    *,
    part: str | None = None,
    approximate: bool = False,
    batch_tokens: int = 4096,
) -> Tensor:
    """Patch `prompt` at each layer and token in turn, and score what the model says next.

    Args:
        source: {layer: activations (1, seq, hidden)} of another prompt with the same number
            of tokens. `read_activations` gives them, or `read_parts` with the same `part`.
        score: a function from next-token logits (batch, vocab), float32, to one number each
            (batch,).
        part: None patches the residual stream; "attention" or "mlp" what that part of each decoder
            layer gives out, before it is added to the stream.
        approximate: True estimates all scores at once, from one pass and its gradients: score plus
            difference times gradient. `score` must then be differentiable. It is exact only where
            the score is linear in the activation: check the important scores again with
            `approximate=False`.
        batch_tokens: the tokens that one forward pass may have; one prompt always fits.

    Gives the scores (layers, seq), float32 on the CPU, rows in the order of `source`. Each row of
    a batch is the prompt with one token patched. Decoder layers below the patch give what they gave
    without it, and are not run again, except in a model where that changes the answer. In the
    residual stream, tokens whose activations are equal in both prompts, such as those of a common
    beginning, are not patched: they get the score of the prompt itself. A bar shows the progress.
    By hand: the lesson on patching and steering.
    """
    if approximate:
        ids, _ = _checked(model, tokenizer, prompt, source, part)
        return _estimate(model, ids, source, score, part)
    rows = patch_rows(
        model,
        tokenizer,
        prompt,
        source,
        lambda logits: _scores(score, logits),
        part=part,
        batch_tokens=batch_tokens,
    )
    bar = tqdm(rows, desc="patching", unit="layer", total=len(source), leave=False)
    return torch.stack([*bar])


def patch_rows(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    source: Mapping[int, Tensor],
    look: Score,
    *,
    part: str | None = None,
    batch_tokens: int = 4096,
) -> Iterator[Tensor]:
    """What `patch_each` does, one layer after the other, without a bar.

    `look` may give several numbers for each row of logits, `(batch, ...)`: a row is `(seq, ...)`.
    """
    if batch_tokens < 1:
        raise ValueError(f"batch_tokens is {batch_tokens}: it must be at least 1")
    ids, below = _checked(model, tokenizer, prompt, source, part)
    seq = ids.shape[1]

    def sweep(
        layer: int, differ: Tensor, skipped: int, outputs: Outputs, plain: Tensor
    ) -> Tensor | None:
        """A row of a layer; None where the model needs the layers left out."""
        row = []
        as_it_is = torch.tensor([-1] if skipped else [], dtype=torch.long)
        places = torch.cat([as_it_is, differ])
        for tokens in places.split(max(1, batch_tokens // seq)):
            put = _patch(source[layer], tokens)
            with _edited(model, layer, len(tokens), put, part):
                logits = _logits_above(model, ids.expand(len(tokens), -1), outputs, skipped)
            is_first = tokens[0] == -1
            if logits is None or (is_first and not _is_same(logits[:1], plain, model.dtype)):
                return None
            logits = logits[1:] if is_first else logits
            if len(logits):
                row.append(look(logits))
        return torch.cat(row)

    def rows() -> Iterator[Tensor]:
        with record_outputs(model) as outputs, ExitStack() as stack:
            recording = None if part else record_activations(model, [*source])
            own = stack.enter_context(recording) if recording else {}
            plain = _logits(model, ids)
        without = look(plain)  # what a patch gives that changes nothing
        every = 1  # 0 once the model has needed the layers left out: then all are run
        for layer in source:
            differ = _tokens_that_differ(source[layer], own.get(layer))
            whole = without.repeat_interleave(seq, dim=0)
            if len(differ):
                row = sweep(layer, differ, every * below[layer], outputs, plain)
                if row is None:
                    every = 0
                    row = sweep(layer, differ, 0, outputs, plain)
                whole[differ] = cast(Tensor, row)
            yield whole

    return rows()


def _tokens_that_differ(source: Tensor, own: Tensor | None) -> Tensor:
    """The tokens whose activation (1, seq, hidden) differs from `own`; all if it is None."""
    if own is None:
        return torch.arange(source.shape[1])
    return (source.to(own) != own).any(dim=-1)[0].nonzero()[:, 0].cpu()


def _checked(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    source: Mapping[int, Tensor],
    part: str | None,
) -> tuple[Tensor, dict[int, int]]:
    """The prompt's ids (1, seq), and for each layer how many decoder layers come before."""
    if not isinstance(prompt, str):
        raise ValueError(f"prompt must be one string, not {prompt!r:.80}")
    ids = torch.tensor(prompt_ids(model, tokenizer, prompt), device=input_device(model))
    _check_source(source, ids.shape[1])
    return ids, {layer: _layers_below(model, layer, part) for layer in source}


def _logits(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """Next-token logits (batch, vocab) of `ids` (batch, seq), none of which is padding."""
    return forward_pass(model, ids, torch.ones_like(ids), use_cache=False).logits[:, -1].float()


def _logits_above(
    model: PreTrainedModel, ids: Tensor, outputs: Outputs, skipped: int
) -> Tensor | None:
    """Next-token logits without the first layers; None where the model does not run without."""
    try:
        with skip_layers(model, outputs, skipped):
            return _logits(model, ids)
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception:  # whatever a layer misses that another one has not left for it
        if skipped:
            return None
        raise


def _patch(activation: Tensor, tokens: Tensor) -> Callable[[Tensor], Tensor]:
    """Puts `activation` (1, seq, hidden) into row i at the place `tokens[i]`, unless that is -1."""

    def put(hidden: Tensor) -> Tensor:
        patched = hidden.clone()
        rows = (tokens >= 0).nonzero()[:, 0]
        patched[rows, tokens[rows]] = activation[0, tokens[rows]].to(hidden)
        return patched

    return put


def _is_same(logits: Tensor, plain: Tensor, dtype: torch.dtype) -> bool:
    """Whether both are the same, to what comes of rounding in `dtype`."""
    largest = plain.nan_to_num(0, 0, 0).abs().max().item()
    return torch.allclose(logits, plain, rtol=0, atol=torch.finfo(dtype).eps ** 0.5 * largest)


def _scores(score: Score, logits: Tensor) -> Tensor:
    """What `score` makes of each row of logits, float32 on the CPU."""
    row, count = score(logits), len(logits)
    if not isinstance(row, Tensor) or row.shape != (count,):
        given = tuple(row.shape) if isinstance(row, Tensor) else type(row).__name__
        raise ValueError(
            f"score must give one number for each row of logits (batch, vocab), here a tensor "
            f"of shape ({count},), and it gave {given}"
        )
    return row.float().cpu()


def _estimate(
    model: PreTrainedModel,
    ids: Tensor,
    source: Mapping[int, Tensor],
    score: Score,
    part: str | None,
) -> Tensor:
    """The scores (layers, seq) to first order: the score and, for each place, what it gains."""
    own: dict[int, Tensor] = {}
    zeros: dict[int, Tensor] = {}  # added to the activations, so that gradients begin there

    with torch.inference_mode(False), torch.enable_grad(), ExitStack() as stack:
        for layer in source:

            def add_zeros(hidden: Tensor, layer: int = layer) -> Tensor:
                own[layer] = hidden.detach()
                zeros[layer] = torch.zeros_like(hidden, requires_grad=True)
                return hidden + zeros[layer]

            stack.enter_context(_edited(model, layer, 1, add_zeros, part))
        inputs = pass_inputs(model, ids.clone(), torch.ones_like(ids), use_cache=False)
        total = _scores(score, model(**inputs).logits[:, -1].float())
        if not total.requires_grad:
            raise ValueError(
                "this score has no gradient, perhaps because it counts or compares: give one that "
                "is a smooth function of the logits, such as a difference of two, or leave "
                "approximate=True out"
            )
        gradients = torch.autograd.grad(total.sum(), [zeros[layer] for layer in source])
    gains = [
        ((source[layer].to(own[layer]) - own[layer]).float() * gradient.float()).sum(dim=-1).cpu()
        for layer, gradient in zip(source, gradients)
    ]
    return total.detach() + torch.cat(gains)


def _layers_below(model: nn.Module, layer: int, part: str | None) -> int:
    """How many decoder layers come before a patch; ValueError for one that is not there."""
    if part is None:
        return layer_numbers(layer, len(locate(model).layers))[0]
    find_part(model, part, layer)
    return layer - 1


def _check_source(source: Mapping[int, Tensor], seq: int) -> None:
    if not isinstance(source, Mapping) or not source:
        given = "but it is empty" if isinstance(source, Mapping) else f"not {type(source).__name__}"
        raise ValueError(
            "source must be {layer: activations (1, seq, hidden)} with at least one layer, "
            f"{given}"
        )
    for layer, activation in source.items():
        shape = tuple(activation.shape)
        if len(shape) != 3 or shape[0] != 1:
            raise ValueError(
                f"the source at layer {layer} has shape {shape} instead of (1, seq, hidden): one "
                "prompt is patched into one prompt"
            )
        if shape[1] != seq:
            raise ValueError(
                f"the number of tokens is {shape[1]} in the source and {seq} in the prompt: each "
                "token takes the activation of the token in its place, so choose prompts with the "
                "same number of tokens"
            )


def _edited(
    model: nn.Module, layer: int, batch: int, put: Callable, part: str | None
) -> AbstractContextManager:
    if part is None:
        return edit_activations(model, {layer: put})
    return hooked_part(model, part, layer, batch, put)
