"""The size of a sample follows from the model's parameters and its device."""

from types import SimpleNamespace

import pytest
import torch

from tutorial_utils.lessons.sizes import sample_size


@pytest.mark.parametrize(
    ("parameters", "device", "size"),
    [
        (1.8e6, "cpu", 100),
        (135e6, "cpu", 6),
        (135e6, "cuda", 100),
        (1.2e9, "cpu", 4),
        (8e9, "cuda:0", 6),
        (8e9, "mps", 4),
        (70e9, "cuda", 4),
    ],
)
def test_three_steps(parameters, device, size):
    model = SimpleNamespace(num_parameters=lambda: int(parameters), device=torch.device(device))
    assert sample_size(model, 100, 6, 4) == size
