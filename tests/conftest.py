"""Makes nbmake fail a notebook in which a widget, a thread or a task swallowed an error."""

from __future__ import annotations

from pathlib import Path

import pytest

import strict_client

strict_client.watch_nbmake()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves out what is run only when asked for by name: the harness's notebooks, the browser."""
    if collection_path.parent.name == "tests" and collection_path.name in ("browser", "real"):
        # make test-browser and make test-real set up what these need
        name = f"tests/{collection_path.name}"
        return True if not any(name in argument for argument in config.args) else None
    folder = collection_path.parent.name
    if folder in ("broken", "good") and not any(folder in argument for argument in config.args):
        return True
    return None


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def tiny(request, tmp_path_factory):
    """A tiny Llama and a tiny GPT-2 with their tokenizers, (model, tokenizer)."""
    import tiny_models
    from tutorial_utils import load_model

    make = {"llama": tiny_models.make_llama, "gpt2": tiny_models.make_gpt2}[request.param]
    return load_model(make(tmp_path_factory.mktemp(request.param)), device="cpu")


@pytest.fixture(scope="module")
def tokenizer():
    """The tiny Llama's."""
    import tiny_models

    return tiny_models.llama_tokenizer()


@pytest.fixture(scope="module")
def pocket():
    """The shipped model and its tokenizer."""
    from tutorial_utils import load_model

    return load_model("pocket-llama", device="cpu")


@pytest.fixture
def nothing_left_behind():
    """No setting of matplotlib is changed, and no figure is open in pyplot."""
    import matplotlib.pyplot as plt

    settings = dict(plt.rcParams)
    yield
    assert dict(plt.rcParams) == settings
    assert plt.get_fignums() == []


@pytest.fixture
def one_thread():
    """Models this small are slower with several threads, above all on a busy machine."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
