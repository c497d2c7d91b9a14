"""Checks of the exercises on logits and softmax."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tutorial_utils.draw.described import counted
from tutorial_utils.lessons.exercise import as_tensor, call, exercise, same_tensor

TEMPERATURES = (0.5, 1.0, 2.0)


def _entropies(logits: Tensor, temperatures: Sequence[float]) -> Tensor:
    """Entropy in bits of `(vocab,)` logits at each temperature."""
    probs = torch.stack([(logits.float() / T).softmax(dim=-1) for T in temperatures])
    return torch.special.entr(probs).sum(dim=-1).cpu() / math.log(2)


@exercise(
    "these are the three entropies, in bits. An entropy near 2.58, that of a fair die, does not "
    "mean that the die is fair: it says how unsure the model is, but not between which tokens."
)
def check_entropies(entropies: Sequence[float] | Tensor, logits: Tensor) -> None:
    """`entropies` are those of the `(vocab,)` logits at the temperatures 0.5, 1 and 2, in bits."""
    case, want = "the temperatures 0.5, 1 and 2", _entropies(logits, TEMPERATURES)
    got = as_tensor(entropies, case=case, hint="put them into a list: [.., .., ..].").squeeze()
    mistakes = {
        "these are nats: divide by math.log(2) to get bits.": want * math.log(2),
        "divide the logits by the temperature: a low one makes the entropy smaller.": (
            _entropies(logits, [1 / T for T in TEMPERATURES])
        ),
        "an entropy is never below 0: put a minus in front of the sum.": -want,
    }
    hint = "one softmax and one entropy for each temperature: put them into a list, [.., .., ..]."
    same_tensor(got, want, case=case, hint=hint, mistakes=mistakes, atol=1e-2)


@exercise("tested with one row, several axes, high logits, and logits that are far apart.")
def check_log_softmax(log_softmax: Callable) -> None:
    """`log_softmax(z)` gives log-probabilities along the last axis, without overflow."""
    torch.manual_seed(0)
    cases = {
        "one row of logits": (torch.randn(6), "compare with torch.log_softmax(z, dim=-1)."),
        "logits of shape (2, 3, 5)": (
            torch.randn(2, 3, 5),
            "take each sum and each max over dim=-1.",
        ),
        "logits around 1000": (torch.randn(2, 5) + 1000, "subtract the highest logit first."),
        "the logits 0, 0 and -1000": (
            torch.tensor([0.0, 0.0, -1000.0]),
            "don't take the logarithm of the softmax: subtract the logarithm of the sum.",
        ),
        "rows of logits around 1000, 0 and -1000": (
            torch.tensor([[1000.0, 1001.0], [0.0, 1.0], [-1000.0, -1001.0]]),
            "subtract from each row its own highest logit: max over dim=-1, with keepdim=True.",
        ),
        "a logit of minus infinity": (
            torch.tensor([[1.0, -torch.inf, 2.0]]),
            "its log-probability is minus infinity, and the other results are the same as "
            "without it.",
        ),
    }
    for case, (z, hint) in cases.items():
        mistakes = {
            f"you used another axis, {dim}: use dim=-1, with keepdim=True.": z.log_softmax(dim)
            for dim in range(z.ndim - 1)
        }
        mistakes["these are probabilities: return log-probabilities."] = z.softmax(-1)
        got = call(log_softmax, z, case=case)
        same_tensor(got, z.log_softmax(dim=-1), case=case, hint=hint, mistakes=mistakes, atol=1e-3)


@exercise("tested with texts of two lengths, and with endings of 1, 2 and 5 tokens.")
def check_ending_bits(ending_bits: Callable) -> None:
    """`ending_bits(logits, ids, k)` is the sum of the surprisals of the last `k` tokens."""
    torch.manual_seed(0)
    for k, length in ((1, 6), (2, 6), (5, 6), (2, 9)):
        # As large and as far from 0 as the logits of real models: no exponential without a shift.
        logits = 10 * torch.randn(length, 8) + 200 * torch.randn(length, 1)
        ids = torch.randint(8, (length,))
        log_probs = logits.log_softmax(dim=-1) / math.log(2)
        no_shift = -log_probs[torch.arange(length), ids]
        bits = -log_probs[torch.arange(length - 1), ids[1:]]
        case = f"an ending of {counted(k, 'token')} in a text of {length}"
        want = bits[-k:].sum()
        mistakes = {
            "no shift: the logits at a position are about the token after it.": no_shift[-k:].sum(),
            "these are nats: divide by math.log(2) to get bits.": want * math.log(2),
            "add up the bits of the ending, don't average them.": bits[-k:].mean(),
            "these are the bits of the whole text: take only the last k tokens.": bits.sum(),
            "one token too many: the last k tokens are ids[-k:].": bits[-k - 1 :].sum(),
            "return one number: add up the bits of the k tokens.": bits[-k:],
            "surprisal is the negative logarithm.": -want,
        }
        hint = "compare `predictions` and `targets` in the lesson, and take the last k of both."
        got = call(ending_bits, logits, ids, k, case=case)
        same_tensor(got, want, case=case, hint=hint, mistakes=mistakes, atol=1e-3)
