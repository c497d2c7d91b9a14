"""Ways to tell an attribute are judged on tokens that they were not chosen on."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import f1_score

from tiny_models import make_llama
from tutorial_utils import load_model
from tutorial_utils.lessons.features.judge import (
    f1_scores,
    judge_columns,
    probe_scores,
    shuffle_weights,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def data() -> tuple[torch.Tensor, ...]:
    """Values of which column 3 tells attribute 0, and the sum of all attribute 1; train, test."""
    torch.manual_seed(0)
    values = torch.randn(4000, 6)
    labels = torch.stack([values[:, 3] > 1, values.sum(dim=1) > 1], dim=1)
    train = torch.arange(4000) % 2 == 0
    return values, labels, train, ~train


def test_f1_is_that_of_scikit_learn():
    torch.manual_seed(0)
    says, labels = torch.rand(50, 3) > 0.5, torch.rand(50, 2) > 0.7
    want = [[f1_score(t.numpy(), s.numpy()) for s in says.T] for t in labels.T]
    assert torch.allclose(f1_scores(says, labels), torch.tensor(want).float())
    assert f1_scores(torch.zeros(4, 1) > 0, torch.zeros(4, 1) > 0).item() == 0


def test_the_column_that_tells_is_found(data):
    values, labels, train, test = data
    judged = judge_columns(values, labels, train, test)
    assert judged.columns[0] == 3 and judged.f1[0] > 0.9
    assert judged.thresholds[0] == pytest.approx(1, abs=0.15)
    assert judged.f1[1] < 0.7, "no single column has the sum"
    says = values[test][:, judged.columns] > judged.thresholds
    assert judged.f1[0].item() == pytest.approx(
        f1_score(labels[test][:, 0].numpy(), says[:, 0].numpy()), abs=1e-5
    )


def test_what_is_chosen_does_not_depend_on_the_test(data):
    values, labels, train, test = data
    other = torch.where(test[:, None], torch.randn_like(values), values)
    one, two = judge_columns(values, labels, train, test), judge_columns(other, labels, train, test)
    assert torch.equal(one.columns, two.columns) and torch.equal(one.thresholds, two.thresholds)
    assert two.f1[0] < 0.5


def test_a_probe_adds_columns_up_and_is_trained_on_training_alone(data):
    values, labels, train, test = data
    scores = probe_scores(values, labels, train)
    assert scores.shape == labels.shape and not scores.requires_grad
    judged = judge_columns(scores, labels, train, test, own=True)
    assert judged.columns.tolist() == [0, 1] and (judged.f1 > 0.9).all()
    changed = torch.where(test[:, None], ~labels, labels)
    assert torch.equal(probe_scores(values, changed, train), scores)


def test_shuffled_weights_are_the_same_numbers_elsewhere(tmp_path):
    model, _ = load_model(make_llama(tmp_path))
    shuffled = shuffle_weights(model)
    for one, other in zip(model.parameters(), shuffled.parameters()):
        assert torch.equal(one.flatten().sort().values, other.flatten().sort().values)
    assert not torch.equal(model.lm_head.weight, shuffled.lm_head.weight)
    again = shuffle_weights(model).lm_head.weight
    assert torch.equal(again, shuffled.lm_head.weight)
