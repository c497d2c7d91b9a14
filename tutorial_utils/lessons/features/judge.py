"""How well a number, or a weighted sum, tells what is true of a token, on documents not seen."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

SHARES = [2 ** (-k / 2) for k in range(2, 20)]  # of tokens above a threshold: half to 1 in 700


class Judged(NamedTuple):
    """For each attribute the column that tells it best, chosen in training, and its F1 in test."""

    f1: Tensor  # (attributes,)
    columns: Tensor  # (attributes,), long
    thresholds: Tensor  # (attributes,)


def f1_scores(says: Tensor, labels: Tensor) -> Tensor:
    """F1 of each column of `says` for each label: (tokens, columns), (tokens, labels), bool.

    Gives (labels, columns): 2 · both / (says + labels), the harmonic mean of precision and recall;
    0 where neither ever says yes.
    """
    says, labels = says.float(), labels.float()
    both, total = labels.T @ says, labels.sum(dim=0)[:, None] + says.sum(dim=0)
    return 2 * both / total.clamp(min=1)


def judge_columns(
    values: Tensor, labels: Tensor, train: Tensor, test: Tensor, own: bool = False
) -> Judged:
    """For each attribute, the column of `values` that tells it best by a threshold.

    values (tokens, columns), labels (tokens, attributes) bool, train and test (tokens,) bool.
    Column and threshold are those of the highest F1 among the tokens of `train`; the F1 that is
    given is that of `test`. `own` judges column i by attribute i alone, as for a probe.
    """
    known, truth = values[train], labels[train]
    some = known[torch.linspace(0, len(known) - 1, min(len(known), 4000)).long()]
    ordered = some.sort(dim=0, descending=True).values
    found = []
    for share in SHARES:
        threshold = ordered[int(len(ordered) * share)]  # (columns,)
        scores = f1_scores(known > threshold, truth)
        if own:
            scores = scores.diagonal()[:, None]
        best, columns = scores.max(dim=1)
        columns = torch.arange(len(best)) if own else columns
        found.append((best, columns, threshold[columns]))
    best, columns, thresholds = (torch.stack(parts) for parts in zip(*found))
    at = best.argmax(dim=0, keepdim=True)
    columns, thresholds = columns.gather(0, at)[0], thresholds.gather(0, at)[0]
    f1 = f1_scores(values[test][:, columns] > thresholds, labels[test]).diagonal()
    return Judged(f1, columns, thresholds)


def probe_scores(hidden: Tensor, labels: Tensor, train: Tensor) -> Tensor:
    """What linear probes, trained on the tokens of `train`, say of all: (tokens, attributes).

    Logistic regression of each attribute on hidden (tokens, hidden). Each coordinate is centred
    and scaled to standard deviation 1 over the tokens of `train`.
    """
    mean, spread = hidden[train].mean(dim=0), hidden[train].std(dim=0)
    inputs, truth = (hidden - mean) / spread.clamp(min=1e-6), labels[train].float()
    weights = torch.zeros(hidden.shape[1], labels.shape[1], requires_grad=True)
    bias = torch.zeros(labels.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([weights, bias], max_iter=60, line_search_fn="strong_wolfe")
    cross_entropy = torch.nn.functional.binary_cross_entropy_with_logits

    def loss() -> float:
        optimizer.zero_grad()
        value = cross_entropy(inputs[train] @ weights + bias, truth)
        value = value + 1e-4 * weights.pow(2).sum()
        value.backward()
        return value.item()

    optimizer.step(loss)
    return (inputs @ weights + bias).detach()


def shuffle_weights(model: PreTrainedModel, seed: int = 0) -> PreTrainedModel:
    """A copy of the model in which the numbers of each weight have changed places at random."""
    generator = torch.Generator().manual_seed(seed)
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for weight in copied.parameters():
            order = torch.randperm(weight.numel(), generator=generator).to(weight.device)
            weight.copy_(weight.flatten()[order].view_as(weight))
    return copied
