"""Errors of the libraries, in plain words."""

from __future__ import annotations

import pytest
from huggingface_hub import constants
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PretrainedConfig

from model_folders import copy_of, refusal
from tutorial_utils.models import load
from tutorial_utils.models.errors import plain_errors
from tutorial_utils.models.load import load_model


@pytest.mark.parametrize("part", [AutoConfig, AutoTokenizer, AutoModelForCausalLM])
def test_a_network_that_fails(part, llama, monkeypatch):
    """Whichever part was being fetched. The libraries' own retries take too long for a test."""

    def from_pretrained(*args, **kwargs):
        try:
            raise ConnectionError("no route to host")
        except ConnectionError as error:
            raise OSError("We couldn't connect to the hub") from error

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(load, "check_hub", lambda name, label: None)
    settings = PretrainedConfig.get_config_dict(llama)
    monkeypatch.setattr(PretrainedConfig, "get_config_dict", lambda *a, **k: settings)
    for other in (AutoConfig, AutoTokenizer):
        value = other.from_pretrained(llama)
        monkeypatch.setattr(other, "from_pretrained", lambda *a, value=value, **k: value)
    monkeypatch.setattr(part, "from_pretrained", from_pretrained)
    assert "huggingface.co can't be reached" in refusal(OSError, "some/model")


def test_errors_keep_what_caused_them(tmp_path, llama):
    with pytest.raises(OSError, match="could not be loaded") as caught:
        load_model(copy_of(llama, tmp_path / "x", hidden_act="unheard-of"))
    assert isinstance(caught.value.__cause__, KeyError)


def test_an_interrupt_is_not_turned_into_an_error():
    with pytest.raises(KeyboardInterrupt), plain_errors("a/b", "'a/b'"):
        raise KeyboardInterrupt
