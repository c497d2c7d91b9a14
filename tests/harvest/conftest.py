"""Tiny models and a file of prompts for the tests of the harvest."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny_models
from tutorial_utils import load_model

PLACES = ["the park", "a very old and very dark house near the river", "Oslo", "the small school"]
LINES = [f"Anna{'.' * (i % 3)} went to {PLACES[i % 4]} {i} times." for i in range(57)]
LINES[7], LINES[30] = "", "   "  # left out


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """A tiny Llama, a tiny GPT-2 and a file of prompts."""
    folder = tmp_path_factory.mktemp("harvest")
    tiny_models.make_llama(folder / "llama")
    tiny_models.make_llama(folder / "other", seed=1)
    tiny_models.make_gpt2(folder / "gpt2")
    (folder / "prompts.txt").write_text("\n".join(LINES), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def prompts(folder) -> Path:
    return folder / "prompts.txt"


@pytest.fixture(scope="session")
def llama(folder):
    return load_model(folder / "llama", device="cpu")
