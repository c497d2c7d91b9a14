"""Configurations: models of the wrong kind, and those that transformers does not know."""

from __future__ import annotations

import pytest
import torch
import transformers
from transformers import BertConfig, BertModel, CLIPConfig, T5Config

from model_folders import copy_of, refusal
from tutorial_utils.models.load import load_model


def test_a_broken_configuration(llama, tmp_path):
    folder = copy_of(llama, tmp_path / "x")
    (folder / "config.json").write_text("{")
    assert "config.json is not JSON text" in refusal(OSError, folder)
    (folder / "config.json").write_text("{}")
    assert "no config.json that says what kind" in refusal(OSError, folder)


def test_an_encoder_only_model(llama, tmp_path):
    config = BertConfig(
        vocab_size=400,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
    )
    BertModel(config).save_pretrained(tmp_path)
    text = refusal(ValueError, tmp_path)
    assert "is an encoder-only model (bert)" in text and "Qwen/Qwen3-0.6B" in text


def test_an_encoder_decoder_model_and_one_for_pictures(llama, tmp_path):
    for config, kind in (
        (T5Config(), "an encoder-decoder model (t5)"),
        (CLIPConfig(), "no causal language model (clip)"),
    ):
        folder = copy_of(llama, tmp_path / config.model_type)
        config.save_pretrained(folder)
        assert kind in refusal(ValueError, folder)


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
    with pytest.warns(UserWarning, match=f"attention of {asked}; transformers' own is used"):
        model, _ = load_model(folder)
    plain, tokenizer = load_model(llama)
    assert model.config._attn_implementation == plain.config._attn_implementation
    ids = tokenizer("Anna", return_tensors="pt").input_ids
    assert torch.equal(model(ids).logits, plain(ids).logits)


def test_the_attention_that_is_asked_for(llama, tmp_path):
    folder = copy_of(llama, tmp_path / "x", attn_implementation="eager")
    assert load_model(folder)[0].config._attn_implementation == "eager"
