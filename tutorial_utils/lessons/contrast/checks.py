"""Checks of the exercises of lesson 06."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from tutorial_utils.contrast import contrast_logits
from tutorial_utils.lessons.exercise import NotYet, call, exercise, same_tensor


@exercise("the layer of the largest divergence among the candidates, at each token.")
def check_picks(picks: torch.Tensor, jsd: torch.Tensor, candidates: Sequence[int]) -> None:
    """`picks` `(seq,)` are layer numbers; `jsd` `(layers, seq)` has a row for each layer from 0."""
    numbers = torch.tensor(list(candidates))
    best = jsd.cpu()[numbers].argmax(dim=0)
    hint = "take the rows of the candidates first, then `argmax(dim=0)`."
    if isinstance(picks, torch.Tensor) and picks.shape == best.shape:
        if torch.equal(picks.cpu(), best) and not torch.equal(best, numbers[best]):
            hint = "these are places among the candidates: look up the layers' numbers."
        elif torch.equal(picks.cpu(), jsd.cpu().argmax(dim=0)):
            hint = "only the candidates may be picked."
        picks = picks.cpu()
    same_tensor(picks, numbers[best], case="the tokens of the text", hint=hint)


def _logits(seed: int, *shape: int) -> torch.Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@exercise("each row contrasted with its own layer, for 1 to 4 rows and three values of alpha.")
def check_contrast_batch(contrast_batch: Callable) -> None:
    """`contrast_batch(final (batch, vocab), early (candidates, batch, vocab), alpha)`."""
    for batch, alpha in ((1, 0.1), (4, 0.1), (4, 0.5), (3, 0.0)):
        case = f"{batch} row{'s' if batch > 1 else ''} and alpha {alpha}"
        final, early = _logits(batch, batch, 12), _logits(batch + 10, 5, batch, 12)
        candidates = dict(enumerate(early))
        want = contrast_logits(final, candidates, alpha=alpha)
        got = call(contrast_batch, final, early, alpha, case=case)
        wrong = {
            "each row picks a layer of its own.": contrast_logits(
                final, candidates, alpha=alpha, batch_average=True
            ).scores,
            "the set is of the tokens whose probability is at least alpha times the highest; "
            "the others get -inf.": contrast_logits(final, candidates, alpha=0).scores,
            "subtract log-probabilities, not logits.": _raw(final, early, want),
            "return the scores, before the softmax.": want.scores.softmax(dim=-1),
        }
        hint = "compare the picked layers first: `contrast_logits(...).layer` has them."
        if isinstance(got, torch.Tensor) and got.shape == want.scores.shape:
            near = [text for text, other in wrong.items() if torch.allclose(got, other, atol=1e-4)]
            hint = near[0] if near else hint
        same_tensor(got, want.scores, case=case, hint=hint, atol=1e-4)


def _raw(final: torch.Tensor, early: torch.Tensor, want) -> torch.Tensor:
    """What comes out where the logits themselves are subtracted."""
    difference = final - early[want.layer, torch.arange(len(final))]
    return difference.masked_fill(want.scores == -torch.inf, -torch.inf)


@exercise("0 leaves the last layer's order, 1 is DoLa, and what lies between and beyond.")
def check_strength(contrast_by: Callable) -> None:
    """`contrast_by(final (vocab,), early (vocab,), beta, alpha)`: log q_N - beta log q_M."""
    final, early = _logits(0, 15), _logits(1, 15)
    for beta in (0.0, 1.0, 0.5, 2.0):
        for alpha in (0.0, 0.2):
            case = f"beta {beta} and alpha {alpha}"
            want = final.log_softmax(-1) - beta * early.log_softmax(-1)
            outside = contrast_logits(final, {0: early}, alpha=alpha).scores == -torch.inf
            got = call(contrast_by, final, early, beta, alpha, case=case)
            hint = "beta multiplies log q_M only; the set depends on q_N and alpha only."
            if isinstance(got, torch.Tensor) and torch.isnan(got).any():
                raise NotYet(f"for {case} there is a NaN.", "mask after subtracting.")
            same_tensor(got, want.masked_fill(outside, -torch.inf), case=case, hint=hint, atol=1e-4)
