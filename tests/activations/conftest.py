"""What the tests of reading and editing activations share: a tiny model of each kind."""

from __future__ import annotations

import pytest

import streams


@pytest.fixture(params=streams.KINDS)
def model(request):
    return streams.build(request.param)


@pytest.fixture
def llama():
    return streams.build("llama")
