"""The models and the inputs that the bench runs on. Needs torch and transformers only."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

SHIPPED = Path(__file__).resolve().parents[1] / "tutorial_utils/pocket_llama"
# Layers, hidden size, intermediate size, heads, vocabulary. Random weights, float32.
SIZES = {"12 x 512": (12, 512, 1376, 8, 4096), "6 x 128": (6, 128, 352, 4, 1024)}
MODELS = [*SIZES, "pocket-llama"]


def build(name: str) -> torch.nn.Module:
    if name == "pocket-llama":
        return AutoModelForCausalLM.from_pretrained(SHIPPED).float().eval()
    layers, hidden, intermediate, heads, vocab = SIZES[name]
    torch.manual_seed(0)
    config = LlamaConfig(
        num_hidden_layers=layers,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        vocab_size=vocab,
        max_position_embeddings=1024,
    )
    return LlamaForCausalLM(config).eval()


def token_ids(batch: int, seq: int) -> torch.Tensor:
    """(batch, seq), ids that every one of the models knows."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(3, 1000, (batch, seq), generator=generator)
