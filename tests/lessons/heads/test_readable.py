"""Models whose heads the lesson can read, and why it can't read those of others."""

from __future__ import annotations

import pytest
import torch

from tiny_models import make_gpt2, make_llama
from tutorial_utils import load_model
from tutorial_utils.lessons.heads import why_no_heads


@pytest.mark.parametrize("make", [make_gpt2, make_llama])
def test_the_heads_of_a_gpt2_and_a_llama_can_be_read(make, tmp_path):
    model, _ = load_model(make(tmp_path / "tiny"), device="cpu")
    assert why_no_heads(model, torch.arange(3, 9)[None]) == ""


def test_a_state_space_model_has_no_heads_to_read():
    from transformers import MambaConfig, MambaForCausalLM

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4, "vocab_size": 99}
    model = MambaForCausalLM(MambaConfig(**sizes)).eval()
    assert "attention" in why_no_heads(model, torch.arange(3, 9)[None])


def test_capped_logits_are_a_reason():
    from transformers import Gemma2Config, Gemma2ForCausalLM

    sizes = {"vocab_size": 99, "hidden_size": 16, "intermediate_size": 32, "head_dim": 8}
    heads = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
    torch.manual_seed(0)
    config = Gemma2Config(**sizes, **heads, final_logit_softcapping=2.0, initializer_range=0.5)
    assert "capped" in why_no_heads(Gemma2ForCausalLM(config).eval(), torch.arange(3, 9)[None])
