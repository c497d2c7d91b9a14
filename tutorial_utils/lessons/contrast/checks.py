"""Checks of the exercises on contrasting layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tutorial_utils.contrast import contrast_logits
from tutorial_utils.draw.described import counted
from tutorial_utils.lessons.exercise import NotYet, call, exercise, same_tensor


@exercise("the layer of the largest divergence among the candidates, at each token.")
def check_picks(picks: Tensor, jsd: Tensor, candidates: Sequence[int]) -> None:
    """`picks` `(seq,)` are layer numbers; `jsd` `(layers, seq)` has a row for each layer from 0."""
    numbers, jsd = torch.tensor(list(candidates)), jsd.cpu()
    best = jsd[numbers].argmax(dim=0)
    mistakes = {
        "these are places among the candidates: look up the layers' numbers.": best,
        "only the candidates may be picked.": jsd.argmax(dim=0),
        "pick the largest divergence, not the smallest.": numbers[jsd[numbers].argmin(dim=0)],
    }
    hint = "take the rows of the candidates first, then `argmax(dim=0)`."
    case = "the tokens of the text"
    same_tensor(picks, numbers[best], case=case, hint=hint, mistakes=mistakes)


def _logits(seed: int, *shape: int) -> Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@exercise("each row contrasted with its own layer, for 1 to 4 rows and four values of alpha.")
def check_contrast_batch(contrast_batch: Callable) -> None:
    """`contrast_batch(final (batch, vocab), early (candidates, batch, vocab), alpha)`."""
    # In the rows of seed 2063, other measures than the divergence pick other layers.
    # With early logits 20 times as large, some probabilities are 0, as in real models.
    cases = ((1, 1, 0.1), (4, 2063, 0.1), (4, 4, 0.5), (3, 3, 1e-6), (3, 3, 1.0), (2, 1, 0.2))
    for batch, seed, alpha in cases:
        case = f"{counted(batch, 'row')} and alpha {alpha}"
        final, early = _logits(seed, batch, 12), _logits(seed + 10, 5, batch, 12)
        early = 20 * early if batch == 2 else early
        candidates = dict(enumerate(early))
        want = contrast_logits(final, candidates, alpha=alpha)
        one = contrast_logits(final, candidates, alpha=alpha, batch_average=True).scores
        everything = contrast_logits(final, candidates, alpha=0).scores
        outside, probs = want.scores == -torch.inf, final.softmax(dim=-1)
        raw = final - early[want.layer, torch.arange(batch)]
        at_least = "the plausible tokens have at least alpha times the highest probability"
        mistakes = {
            "each row picks a layer of its own.": one,
            f"{at_least}; the others get -inf.": everything,
            "implausible tokens get -inf, not 0.": want.scores.masked_fill(outside, 0),
            f"{at_least} of its own row: the max is over dim=-1.": (
                everything.masked_fill(probs < alpha * probs.max(), -torch.inf)
            ),
            "subtract log-probabilities, not logits.": raw.masked_fill(outside, -torch.inf),
            "return the scores, before the softmax.": want.scores.softmax(dim=-1),
        }
        got = call(contrast_batch, final, early, alpha, case=case)
        hint = (
            "pick with `divergence`, and compare the picked layers first: "
            "`contrast_logits(...).layer` has them."
        )
        same_tensor(got, want.scores, case=case, hint=hint, mistakes=mistakes, atol=1e-4)


@exercise("beta 0 (the mask alone), 1 (DoLa), 0.5 and 2, each with three values of alpha.")
def check_strength(contrast_by: Callable) -> None:
    """`contrast_by(final (vocab,), early (vocab,), beta, alpha)`: log q_N - beta log q_M."""
    final, early = _logits(0, 15), 20 * _logits(1, 15)
    for beta in (0.0, 1.0, 0.5, 2.0):
        for alpha in (1e-6, 0.2, 1.0):
            case = f"beta {beta} and alpha {alpha}"
            scores = final.log_softmax(-1) - beta * early.log_softmax(-1)
            outside = contrast_logits(final, {0: early}, alpha=alpha).scores == -torch.inf
            mistakes = {
                "implausible tokens get -inf, not 0.": scores.masked_fill(outside, 0),
                "subtract log-probabilities, not logits.": (
                    (final - beta * early).masked_fill(outside, -torch.inf)
                ),
                "the plausible tokens have at least alpha times the highest probability.": (scores),
            }
            got = call(contrast_by, final, early, beta, alpha, case=case)
            if isinstance(got, Tensor) and torch.isnan(got).any():
                raise NotYet(f"for {case}, there is a NaN.", "mask after subtracting.")
            want = scores.masked_fill(outside, -torch.inf)
            hint = "beta multiplies log q_M only, and the plausible tokens do not depend on it."
            same_tensor(got, want, case=case, hint=hint, mistakes=mistakes, atol=1e-4)
