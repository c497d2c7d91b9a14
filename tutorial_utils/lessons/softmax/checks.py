"""Checks of the exercises of lesson 02."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from tutorial_utils.lessons.exercise import NotYet, call, exercise, same_tensor

TEMPERATURES = (0.5, 1.0, 2.0)


def _entropies(logits: torch.Tensor, temperatures: Sequence[float]) -> torch.Tensor:
    """Entropy in bits of `(vocab,)` logits at each temperature."""
    probs = torch.stack([(logits.float() / T).softmax(dim=-1) for T in temperatures])
    return torch.special.entr(probs).sum(dim=-1).cpu() / math.log(2)


@exercise("three entropies in bits. Compare the one in the middle with a fair die's 2.58.")
def check_entropies(entropies: Sequence[float] | torch.Tensor, logits: torch.Tensor) -> None:
    """`entropies` are those of the `(vocab,)` logits at the temperatures 0.5, 1 and 2, in bits."""
    case = "the temperatures 0.5, 1 and 2"
    try:
        got = torch.tensor([float(number) for number in entropies])
    except (TypeError, ValueError):
        found = f"expected three numbers, got {type(entropies).__name__}."
        raise NotYet(found, "put them into a list: [.., .., ..].") from None
    want = _entropies(logits, TEMPERATURES)
    hint = "one softmax and one entropy for each temperature."
    if got.shape == want.shape and not torch.allclose(got, want, atol=1e-2):
        if torch.allclose(got, want * math.log(2), atol=1e-2):
            hint = "these are nats: divide by math.log(2) to get bits."
        elif torch.allclose(got, _entropies(logits, [1 / T for T in TEMPERATURES]), atol=1e-2):
            hint = "divide the logits by the temperature: a low one makes the entropy smaller."
        elif (got < 0).all():
            hint = "an entropy is never below 0: there is a minus in front of its sum."
    same_tensor(got, want, case=case, hint=hint, atol=1e-2)


@exercise("one row, several axes, high logits, and logits that lie far apart.")
def check_log_softmax(log_softmax: Callable) -> None:
    """`log_softmax(z)` gives log-probabilities along the last axis, without overflow."""
    torch.manual_seed(0)
    cases = {
        "one row of logits": (torch.randn(6), "compare with torch.log_softmax(z, dim=-1)."),
        "logits (2, 3, 5)": (torch.randn(2, 3, 5), "every sum and max is over dim=-1."),
        "logits around 1000": (torch.randn(2, 5) + 1000, "subtract the highest logit first."),
        "logits 0 and -200": (
            torch.tensor([0.0, -200.0]),
            "don't take the logarithm of the softmax: subtract the logarithm of the sum.",
        ),
    }
    for case, (z, hint) in cases.items():
        got = call(log_softmax, z, case=case)
        if isinstance(got, torch.Tensor) and got.shape == z.shape:
            if torch.allclose(got, z.softmax(dim=-1)):
                hint = "these are probabilities: what is wanted is their logarithm."
            elif z.ndim == 3 and any(torch.allclose(got, z.log_softmax(d)) for d in (0, 1)):
                hint = "that is another axis: say dim=-1, with keepdim=True."
        same_tensor(got, z.log_softmax(dim=-1), case=case, hint=hint)


@exercise("endings of 1, 2 and 4 tokens, in bits.")
def check_ending_bits(ending_bits: Callable) -> None:
    """`ending_bits(logits, ids, k)` is the sum of the surprisals of the last `k` tokens."""
    torch.manual_seed(0)
    logits, ids = 3 * torch.randn(6, 8), torch.tensor([5, 1, 7, 2, 2, 4])
    log_probs = logits.log_softmax(dim=-1) / math.log(2)
    at, after = torch.arange(6), torch.arange(5)
    no_shift = -log_probs[at, ids]
    bits = -log_probs[after, ids[1:]]
    for k in (1, 2, 4):
        case, want = f"an ending of {k} token{'s' if k > 1 else ''}", bits[-k:].sum()
        got = call(ending_bits, logits, ids, k, case=case)
        if isinstance(got, (int, float)):
            got = torch.tensor(float(got))
        hint = "compare `predictions` and `targets` in the lesson: then take the last k of both."
        wrong = {
            "no shift: the logits at a position are about the token after it.": no_shift[-k:].sum(),
            "these are nats: divide by math.log(2) to get bits.": want * math.log(2),
            "add up the bits of the ending, don't average them.": bits[-k:].mean(),
            "that is the whole text: take the last k tokens only.": bits.sum(),
            "one token too many: the last k tokens are ids[-k:].": bits[-k - 1 :].sum(),
            "surprisal is the negative logarithm.": -want,
        }
        if isinstance(got, torch.Tensor) and got.shape == want.shape:
            near = [text for text, value in wrong.items() if torch.allclose(got, value, atol=1e-4)]
            hint = near[0] if near else hint
        same_tensor(got, want, case=case, hint=hint, atol=1e-3)
