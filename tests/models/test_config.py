"""Configurations: models of the wrong kind, and those that transformers does not know."""

from __future__ import annotations

import warnings

import pytest
import torch
import transformers
from packaging.version import Version
from transformers import BertConfig, CLIPConfig, T5Config

import tiny_models
from model_folders import copy_of, refusal
from tutorial_utils.models import config
from tutorial_utils.models.load import load_model

OWN = Version(transformers.__version__)
NEXT = f"{OWN.major + 1}.0.0"
LATER = f"{OWN.major}.{OWN.minor + 1}.0"


def test_a_broken_configuration(llama, tmp_path):
    folder = copy_of(llama, tmp_path / "x")
    (folder / "config.json").write_text("{")
    assert "config.json is not JSON text" in refusal(OSError, folder)
    (folder / "config.json").write_text("{}")
    assert "no config.json, which says what kind" in refusal(OSError, folder)


def test_models_of_another_kind(llama, tmp_path):
    for settings, kind in (
        (BertConfig(), "an encoder-only model (bert)"),
        (T5Config(), "an encoder-decoder model (t5)"),
        (CLIPConfig(), "not a causal language model (clip)"),
    ):
        folder = copy_of(llama, tmp_path / settings.model_type)
        settings.save_pretrained(folder)
        text = refusal(ValueError, folder)
        assert kind in text and "Qwen/Qwen3-0.6B" in text


@pytest.mark.parametrize(
    "classes", [["AutoConfig", "AutoModelForCausalLM"], ["AutoModelForCausalLM"]]
)
def test_code_from_elsewhere_is_never_run(llama, tmp_path, classes):
    ran = tmp_path / "ran"
    folder = copy_of(
        llama,
        tmp_path / "x",
        model_type="strange" if "AutoConfig" in classes else "clip",
        auto_map={name: f"code.{name}" for name in classes},
    )
    (folder / "code.py").write_text(f"open({str(ran)!r}, 'w')\n")
    text = refusal(ValueError, folder)
    assert "trust_remote_code=False" in text and "can do anything on your machine" in text
    assert not ran.exists()


def test_code_that_transformers_does_not_need_is_no_obstacle(llama, tmp_path):
    folder = copy_of(llama, tmp_path / "x", auto_map={"AutoModelForCausalLM": "code.Model"})
    assert type(load_model(folder)[0]).__name__ == "LlamaForCausalLM"


def test_a_model_that_transformers_does_not_know(llama, tmp_path):
    text = refusal(OSError, copy_of(llama, tmp_path / "x", model_type="strange"))
    assert "pip install -U transformers" in text and transformers.__version__ in text


# Settings of config.json


def test_settings_of_another_form_of_outputs_are_left_out(llama, gpt2, tmp_path):
    for number, folder in enumerate((llama, gpt2)):
        changed = copy_of(
            folder,
            tmp_path / str(number),
            return_dict=False,
            torchscript=True,
            output_attentions=True,
            output_hidden_states=True,
        )
        model, tokenizer = load_model(changed)
        ids = tokenizer("Anna", return_tensors="pt").input_ids
        outputs = model(ids)
        assert torch.equal(outputs.logits, load_model(folder)[0](ids).logits)
        assert outputs.attentions is None and outputs.hidden_states is None


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
@pytest.mark.parametrize(
    "asked", ["flash_attention_2", "flash_attention_3", "flex_attention", "someone/kernels", "new"]
)
def test_an_attention_that_is_not_there(asked, key, llama, tmp_path):
    folder = copy_of(llama, tmp_path / "x", **{key: asked})
    with pytest.warns(
        UserWarning,
        match=f"attention implementation {asked}; torch's own attention is used instead",
    ):
        model, _ = load_model(folder)
    plain, tokenizer = load_model(llama)
    assert model.config._attn_implementation == plain.config._attn_implementation
    ids = tokenizer("Anna", return_tensors="pt").input_ids
    assert torch.equal(model(ids).logits, plain(ids).logits)


# Files of a newer transformers


def test_settings_of_the_next_version_are_not_overlooked(llama, gpt2, tmp_path):
    for make in (llama, gpt2):
        folder = copy_of(
            make, tmp_path / make.name, transformers_version=NEXT, new_positions={"base": 500000}
        )
        text = refusal(OSError, folder)
        assert f"written by transformers {NEXT}. transformers {OWN}, which is installed" in text
        assert "new_positions" in text and "pip install -U transformers" in text


def test_a_later_version_gives_a_warning(llama, tmp_path):
    folder = copy_of(llama, tmp_path / "x", transformers_version=LATER, new_scale=0.5)
    with pytest.warns(UserWarning, match="new_scale"):
        load_model(folder)


@pytest.mark.parametrize(
    "settings",
    [
        {"transformers_version": NEXT},
        {"transformers_version": NEXT, "new_scale": None, "new_list": [], "use_new": False},
        {"transformers_version": NEXT, "auto_map": {"AutoModelForCausalLM": "code.Model"}},
        {"transformers_version": NEXT, "torch_dtype": "float32", "dtype": None},
        {"transformers_version": "4.40.0", "own_note": "a key of the owner's"},
        {"transformers_version": "unknown", "own_note": "a key of the owner's"},
        {"own_note": "a key of the owner's"},
    ],
)
def test_what_means_nothing_or_is_older_is_no_obstacle(settings, llama, tmp_path):
    folder = copy_of(llama, tmp_path / "x", **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        load_model(folder)


class OldLlama:
    """A configuration as of transformers 4: the base of the rotary positions has its own key."""

    def __init__(self, rope_theta=10000.0, rope_scaling=None):
        self.rope_theta, self.rope_scaling = rope_theta, rope_scaling


@pytest.mark.parametrize(
    ("rope", "lost"),
    [
        ({"rope_type": "default", "rope_theta": 10000.0}, False),
        ({"rope_type": "default", "rope_theta": 500000.0}, True),
        ({"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0}, True),
        ({"full_attention": {"rope_theta": 10000.0}}, True),
    ],
)
@pytest.mark.parametrize("written", ["5.0.0", None])
def test_rotary_positions_of_transformers_5(rope, lost, written, monkeypatch):
    """Read by 4, which keeps the key and computes with its own default."""
    monkeypatch.setattr("tutorial_utils.models.config.__version__", "4.57.6")
    old = OldLlama()
    old.rope_parameters = rope
    settings = {"rope_parameters": rope, "transformers_version": written}
    if lost:
        with pytest.raises(
            OSError, match=r"ignores these keys of its config\.json: rope_parameters"
        ):
            config._check_version(settings, old, "x")
    else:
        config._check_version(settings, old, "x")


def test_the_base_of_the_rotary_positions_is_the_files(tmp_path):
    """Whatever version wrote the file."""
    folder = tiny_models.make_llama(tmp_path / "x", rope_theta=500000.0)
    model, _ = load_model(folder)
    frequencies = model.model.rotary_emb.inv_freq
    assert float(frequencies[1]) ** -len(frequencies) == pytest.approx(500000, rel=1e-3)
