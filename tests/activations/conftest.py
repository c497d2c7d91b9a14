"""What the tests of reading and editing activations share: a tiny model of each kind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import streams


def build_and_look_for_hooks(kind: str) -> Iterator[torch.nn.Module]:
    """Whatever a test does, no hook is left on the model when it is done."""
    model = streams.build(kind)
    yield model
    assert not streams.own_hooks(model)


@pytest.fixture(params=streams.KINDS)
def model(request):
    yield from build_and_look_for_hooks(request.param)


@pytest.fixture
def llama():
    yield from build_and_look_for_hooks("llama")
