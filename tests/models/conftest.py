"""Tiny models, saved in folders."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny_models


@pytest.fixture(scope="session")
def llama(tmp_path_factory) -> Path:
    return tiny_models.make_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def gpt2(tmp_path_factory) -> Path:
    return tiny_models.make_gpt2(tmp_path_factory.mktemp("gpt2"))
