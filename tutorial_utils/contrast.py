"""Contrast the last layer's prediction with that of an earlier layer (DoLa).

Chuang et al. 2023, "DoLa: Decoding by Contrasting Layers Improves Factuality in Large Language
Models", arXiv:2309.03883. The defaults follow the paper. `kl_swapped`, `batch_average` and
`final_norm` switch to what the authors' released code does. By hand: the lesson on DoLa.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import LogitsProcessor, PreTrainedModel

from tutorial_utils.activations.hooks import hooked_layers
from tutorial_utils.activations.layers import find_decoder_layers, layer_numbers, locate
from tutorial_utils.activations.record_and_edit import record_activations
from tutorial_utils.decoding import check_finite
from tutorial_utils.lens import kl_divergence, unembed

# "low" and "high" cover at most this many layers, as the largest groups of layers in the paper.
MAX_CANDIDATES = 20


def jensen_shannon(logits: Tensor, other: Tensor, *, swapped: bool = False) -> Tensor:
    """Jensen-Shannon divergence in bits, 0 to 1, of p = softmax(logits) and q = softmax(other).

    It is the mean of D(p || m) and D(q || m), where m is the mean of p and q (Lin 1991,
    doi:10.1109/18.61115). `swapped` takes the mean of D(m || p) and D(m || q) instead, which has no
    upper limit. From `(..., vocab)` to `(...)`, float32. By hand: the lesson on DoLa.
    """
    log_p, log_q = (z.float().log_softmax(dim=-1) for z in (logits, other))
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    pairs = [(log_m, log_p), (log_m, log_q)] if swapped else [(log_p, log_m), (log_q, log_m)]
    one, two = (kl_divergence(*pair) for pair in pairs)
    return (one + two).clamp(min=0) / 2  # rounding can give -1e-8


def candidate_layers(model: PreTrainedModel, which: str | int | Iterable[int] = "low") -> list[int]:
    """The numbers of the layers to choose from, lowest first.

    `which` is "low", "high", a layer number or several; negative numbers count from the end. "low"
    and "high" mean the even layers in the lower or upper half of layers 0 to n - 1, but no more
    than the first or last 20 layers. With tied embeddings "low" leaves out layer 0, which would
    predict the token just read. By hand: the lesson on DoLa.

    Raises ValueError for layer n: it is the one that the candidates are contrasted with.
    """
    n = len(find_decoder_layers(model))
    if isinstance(which, str):
        if which not in ("low", "high"):
            raise ValueError(f'candidates are "low", "high" or layer numbers, not {which!r}')
        if which == "high":
            found = [i for i in range(max(n // 2, n - MAX_CANDIDATES), n) if i % 2 == 0]
            return found or [n - 1]
        lower = range(0, max(1, min(n // 2, MAX_CANDIDATES)), 2)
        return [i for i in lower if i or not _tied(model)] or [min(1, n - 1)]
    numbers = sorted(layer_numbers([which] if isinstance(which, int) else which, n))
    if numbers[-1] == n:
        raise ValueError(
            f"layer {n} is the last layer, and the candidates are contrasted with it: choose from "
            f"layers 0 to {n - 1}"
        )
    return numbers


def _tied(model: PreTrainedModel) -> bool:
    """Whether one matrix is both the embedding and the unembedding."""
    ends = model.get_input_embeddings(), model.get_output_embeddings()
    if None in ends:
        return False
    one, other = (end.weight for end in ends)
    if one.is_meta or other.is_meta:  # offloaded: they cannot be compared
        return bool(getattr(model.config, "tie_word_embeddings", False))
    return one is other


class Contrast(NamedTuple):
    """Scores `(..., vocab)`, picked layers `(...)`, divergences `(candidates, ...)` in bits."""

    scores: Tensor
    layer: Tensor
    divergence: Tensor


def contrast_logits(
    final: Tensor,
    candidates: Mapping[int, Tensor],
    *,
    alpha: float = 0.1,
    kl_swapped: bool = False,
    batch_average: bool = False,
) -> Contrast:
    """Contrast the last layer's logits with those of the candidate that differs most from it.

    `final` is `(..., vocab)`; `candidates` are `{layer number: logits (..., vocab)}`, as
    `logit_lens` returns them. A single candidate is always picked. With q_N the last layer's
    distribution and q_M that of the picked layer, scores are log q_N - log q_M, and -inf for a
    token whose q_N is below `alpha` times the highest. Where logits are NaN or +inf, the scores are
    NaN and the layer is -1.

    Two options do what the released code does. `kl_swapped` takes D(m || q) instead of D(q || m) in
    the divergence. `batch_average` takes the mean of the divergence over the first axis, so that
    all rows get the same layer. By hand: the lesson on DoLa.

    Raises ValueError for other shapes and for an alpha that is not from 0 to 1.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}: it must be from 0, all tokens, to 1, the first choice")
    shapes = {number: tuple(logits.shape) for number, logits in candidates.items()}
    if not shapes or set(shapes.values()) != {tuple(final.shape)}:
        raise ValueError(
            "candidates must be at least one {layer: logits} of the final logits' shape, "
            f"{tuple(final.shape)}, not {shapes}"
        )
    log_final = final.float().log_softmax(dim=-1)
    forbidden = log_final == -math.inf  # a processor before this one forbade them
    log_early = {
        number: logits.to(final.device).float().masked_fill(forbidden, -math.inf).log_softmax(-1)
        for number, logits in candidates.items()
    }
    divergence = torch.stack(
        [jensen_shannon(log_final, early, swapped=kl_swapped) for early in log_early.values()]
    )
    if batch_average and final.dim() > 1:
        divergence = divergence.mean(dim=1, keepdim=True).expand_as(divergence).clone()
    unknown = divergence.isnan().any(dim=0)  # where some logits are not finite
    picked = divergence.argmax(dim=0)
    scores = torch.full_like(log_final, -math.inf)
    least = log_final.amax(-1, keepdim=True) + (math.log(alpha) if alpha else -math.inf)
    plausible = (log_final >= least) & ~forbidden
    for place, early in enumerate(log_early.values()):
        here = plausible & (picked == place)[..., None]
        scores = torch.where(here, log_final - early, scores)
    scores = scores.masked_fill(unknown[..., None], math.nan)
    layer = torch.tensor(list(candidates), device=picked.device)[picked]
    return Contrast(scores, layer.masked_fill(unknown, -1), divergence)


@contextmanager
def contrast_layers(
    model: PreTrainedModel,
    candidates: str | int | Iterable[int] = "low",
    *,
    alpha: float = 0.1,
    final_norm: bool = True,
    kl_swapped: bool = False,
    batch_average: bool = False,
) -> Iterator[ContrastProcessor]:
    """DoLa as a logits processor for transformers' own `generate`, inside the `with` block.

    Example::

        with contrast_layers(model, "high") as contrast:
            model.generate(**inputs, logits_processor=[contrast], do_sample=False)
        contrast.picked  # the layers, a tensor (batch,) for each new token

    `candidates` are those of `candidate_layers`; the other options are those of `contrast_logits`.
    `final_norm=False` unembeds the candidates without the final norm, as the released code does.

    A prompt that is padded on the left gets the same text as alone, unless `batch_average` is set.
    Options of `generate` such as `repetition_penalty` act before the contrast. A processor after it
    in the list acts on the contrasted scores. By hand: the lesson on DoLa.

    During `generate`, raises ValueError for beam search, assisted decoding and guidance.
    """
    where = locate(model)
    outermost = where._replace(owners=[where.owners[0], where.owners[-1]])
    numbers = candidate_layers(model, candidates)
    options = {"alpha": alpha, "kl_swapped": kl_swapped, "batch_average": batch_average}
    with record_activations(model, numbers, positions="last") as activations:
        head = partial(unembed, model) if final_norm else model.get_output_embeddings()
        processor = ContrastProcessor(activations, head, options)
        try:
            with hooked_layers(outermost, {}, processor.see_inputs):
                yield processor
        finally:
            processor.activations = None


class ContrastProcessor(LogitsProcessor):
    """The processor of `contrast_layers`; each token appends a tensor `(batch,)` to `picked`."""

    def __init__(
        self, activations: Mapping[int, Tensor], head: Callable[[Tensor], Tensor], options: dict
    ) -> None:
        self.activations: Mapping[int, Tensor] | None = activations
        self.head, self.options = head, options
        self.picked: list[Tensor] = []
        self._passes: list[Tensor | None] = []  # the token ids of each pass since the last token
        self._length = 0  # of the text when the last token was chosen

    def see_inputs(self, part: nn.Module, args: tuple, kwargs: dict) -> None:
        """Note the token ids (batch, seq) of a forward pass; None if it was given vectors."""
        self._passes.append(kwargs.get("input_ids", args[0] if args else None))

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Contrast the scores (batch, vocab) that the model's last layer gave.

        Raises ValueError if the last pass did not read this text up to its last token.
        """
        if self.activations is None:
            raise ValueError(
                "this processor works only inside the `with contrast_layers(...)` block"
            )
        if problem := self._problem(input_ids, len(scores)):
            raise ValueError(
                f"{problem}, so the recorded layers do not belong to these scores. Use greedy "
                "decoding or sampling, without beam search, assisted decoding and guidance "
                "(guidance_scale), which run the model in other ways"
            )
        vectors = [self.activations[i][:, -1].to(scores.device) for i in self.activations]
        early = self.head(torch.stack(vectors)).to(scores.device)
        result = contrast_logits(scores, dict(zip(self.activations, early)), **self.options)
        check_finite(result.scores, "the contrasted scores")
        self.picked.append(result.layer)
        return result.scores

    def _problem(self, input_ids: Tensor, rows: int) -> str | None:
        """Why the recorded layers do not belong to the scores of this text; None if they do.

        It is called once per token. The passes since the last call must have read either the new
        tokens of the text or all of it.
        """
        passes, self._passes = self._passes, []
        length, is_next = input_ids.shape[1], input_ids.shape[1] == self._length + 1
        self._length = length
        known = [ids for ids in passes if ids is not None]
        counts = sorted({len(ids) for ids in known})
        if not passes:
            return "no forward pass of the model came before these scores"
        if len(passes) == 1 and not known:
            return None  # a prompt given as vectors, whose ids nobody knows
        if len(known) < len(passes):
            return "a forward pass was given vectors, whose token ids are not known"
        if counts != [rows]:
            read_rows = " and ".join(map(str, counts))
            return f"the batch size was {read_rows} in the model, and is {rows} in these scores"
        read = torch.cat(known, dim=1).to(input_ids.device)  # a long prompt may be read in chunks
        count = read.shape[1]
        fits = count in (1, length) if is_next else count <= length
        if not fits or not torch.equal(read, input_ids[:, -count:]):
            return "the model has read something other than the end of this text"
        try:
            dict(self.activations or {})
        except KeyError as error:
            return error.args[0]
        return None
