"""Checks of the exercises on sparse features."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from tutorial_utils.lessons.exercise import NotYet, as_number, call, exercise, same_tensor


@exercise("the k largest scores of each row stay where they were, and none is below 0.")
def check_keep_top(keep_top: Callable) -> None:
    """`keep_top(scores, k)`: (tokens, features) with the k largest of each row, not below 0."""
    torch.manual_seed(0)
    cases = {
        "one row and k = 2": (torch.tensor([[1.0, 4, -2, 3]]), 2),
        "a row with few scores above 0 and k = 3": (
            torch.tensor([[-1.0, 2, -3, -4], [5, 1, 6, 7]]),
            3,
        ),
        "rows that share scores, and k = 2": (torch.tensor([[3.0, 1, 2, 0], [5, 4, 3, 2]]), 2),
        "five rows and k = 1": (torch.randn(5, 6), 1),
        "five rows and k = 6, all of them": (torch.randn(5, 6), 6),
    }
    for case, (scores, k) in cases.items():
        values, places = scores.topk(k, dim=-1)
        empty = torch.zeros_like(scores)
        want = empty.scatter(-1, places, values.relu())
        mistakes = {
            "a score below 0 becomes 0, even among the k largest.": empty.scatter(
                -1, places, values
            ),
            "these are the k smallest of each row.": _kept(scores, -scores, k),
            "these are the k largest regardless of their sign.": _kept(scores, scores.abs(), k),
            "k scores of each row stay, not k of the whole tensor.": _kept_of_all(scores, k),
            "everything that is not among the k largest must be 0.": scores.relu(),
            "these are the k largest of each column: `dim=-1` gives those of each row.": (
                _kept(scores.T, scores.T, min(k, len(scores))).T
            ),
            "the values must stay as they are: this has 1 in their place.": (want > 0).float(),
            "the shape must stay: write the values into a tensor of zeros.": values.relu(),
        }
        got = call(keep_top, scores, k, case=case, hints={"out of range": "take `dim=-1`."})
        hint = "start with zeros, and write the k largest values at their places with `scatter`."
        same_tensor(got, want, case=case, hint=hint, mistakes=mistakes)


def _kept(scores: torch.Tensor, order: torch.Tensor, k: int) -> torch.Tensor:
    """`scores` where `order` is among the k largest of its row, not below 0."""
    places = order.topk(k, dim=-1).indices
    return torch.zeros_like(scores).scatter(-1, places, scores.gather(-1, places).relu())


def _kept_of_all(scores: torch.Tensor, k: int) -> torch.Tensor:
    return _kept(scores.flatten(), scores.flatten(), k).view_as(scores)


@exercise("it also works if all answers are right, if none is yes, and if nothing is true.")
def check_precision_and_recall(precision_and_recall: Callable) -> None:
    """`precision_and_recall(says, truth)`: two numbers of two bool tensors (tokens,)."""
    cases = {
        "3 yes answers, 2 of them right, and 5 true tokens": (
            "1110000000",
            "0110000111",
            2 / 3,
            2 / 5,
        ),
        "5 yes answers, 1 of them right, and 2 true tokens": (
            "1111100000",
            "0000100001",
            1 / 5,
            1 / 2,
        ),
        "yes answers that are all right": ("0101", "0101", 1.0, 1.0),
        "one yes answer, which is right": ("0100", "0100", 1.0, 1.0),
        "no yes answer": ("0000", "0110", 0.0, 0.0),
        "no true token": ("0110", "0000", 0.0, 0.0),
    }
    for case, (said, true, *want) in cases.items():
        says, truth = (torch.tensor([digit == "1" for digit in row]) for row in (said, true))
        zero = {"ZeroDivision": "if there is no yes answer, or no true token, the answer is 0."}
        got = call(precision_and_recall, says, truth, case=case, hints=zero)
        got = got.tolist() if isinstance(got, (torch.Tensor, np.ndarray)) else got
        if not isinstance(got, (tuple, list)) or len(got) != 2:
            raise NotYet(f"for {case}, expected two numbers.", "return precision, recall")
        found = "this is not a number: where you would divide by 0, the answer is 0."
        given = [as_number(one, case=case, hint=found) for one in got]
        right = int((says == truth).sum()) / len(says)
        f1 = 2 * want[0] * want[1] / (sum(want) or 1)
        for name, number, expected, other in zip(("precision", "recall"), given, want, want[::-1]):
            if abs(number - expected) < 1e-4:
                continue
            hint = (
                "precision divides the right yes answers by all yes answers, "
                "recall divides them by all true tokens."
            )
            if abs(number - other) < 1e-4:
                hint = "precision comes first, then recall: did you swap them?"
            elif abs(number - right) < 1e-4:
                hint = "that is the share of tokens on which both agree: it also counts each no."
            elif abs(number - f1) < 1e-4:
                hint = "that is F1, which is made of the two."
            raise NotYet(f"for {case}, expected {name} {expected:.3g}, got {number:.3g}.", hint)


@exercise("the feature's part is gone, and what the autoencoder leaves over is still there.")
def check_without_feature(without: Callable) -> None:
    """`without(hidden, codes, decoder, scale, feature)` gives (batch, seq, hidden)."""
    torch.manual_seed(0)
    for scale, feature in ((1.0, 3), (0.4, 5)):
        case = f"feature {feature} and a scale of {scale:g}"
        hidden, codes = torch.randn(2, 3, 5), torch.rand(2, 3, 7)
        decoder = torch.nn.functional.normalize(torch.randn(7, 5), dim=1)
        part = codes[..., feature][..., None] * decoder[feature]
        rest = codes.clone()
        rest[..., feature] = 0
        along = (hidden @ decoder[feature])[..., None] * decoder[feature]
        mistakes = {
            "divide the part by the scale: the codes are for activations times the scale.": hidden
            - part,
            "divide by the scale, do not multiply.": hidden - part * scale,
            "subtract the part: this adds it once more.": hidden + part / scale,
            "that is the part itself: subtract it from `hidden`.": part / scale,
            "nothing has been removed yet.": hidden,
            "everything else stays: subtract one part, do not add up the other features.": (
                rest @ decoder / scale
            ),
            "subtract the feature's number times its direction, not everything along it.": (
                hidden - along
            ),
            "each token has its own number: this subtracts the same vector from every token.": (
                hidden - decoder[feature] / scale
            ),
            "remove one feature only: this removes all of them.": hidden - codes @ decoder / scale,
        }
        got = call(without, hidden, codes, decoder, scale, feature, case=case)
        hint = (
            "the part is codes[..., feature], with one more axis, times decoder[feature] / scale."
        )
        same_tensor(got, hidden - part / scale, case=case, hint=hint, mistakes=mistakes)
