"""Three kinds of tiny random models, and their residual stream by other means than ours."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTJConfig,
    GPTJForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from tutorial_utils.activations.reader import Activations
from tutorial_utils.activations.record_and_edit import record_activations

KINDS = ("llama", "gpt2", "gptj")
LAYERS, HIDDEN, VOCAB = 3, 32, 99


def build(kind: str, **settings: object) -> torch.nn.Module:
    """A tiny random model. GPT-J's layers return a tuple, in old versions the others' too."""
    torch.manual_seed(0)
    tokens = {"vocab_size": VOCAB, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    gpt = {"n_layer": LAYERS, "n_embd": HIDDEN, "n_head": 4, **tokens, **settings}
    if kind == "gpt2":
        return GPT2LMHeadModel(GPT2Config(**gpt)).eval()
    if kind == "gptj":
        return GPTJForCausalLM(GPTJConfig(rotary_dim=4, **gpt)).eval()
    llama = {
        "num_hidden_layers": LAYERS,
        "hidden_size": HIDDEN,
        "intermediate_size": 48,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    return LlamaForCausalLM(LlamaConfig(**{**llama, **tokens, **settings})).eval()


def random_ids(batch: int = 2, seq: int = 7) -> Tensor:
    return torch.randint(3, VOCAB, (batch, seq), generator=torch.Generator().manual_seed(1))


def random_vector() -> Tensor:
    return torch.randn(HIDDEN, generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def record(model, layers=None, *, inputs: dict | None = None, **options) -> Activations:
    """Record one forward pass, by default over `random_ids()`."""
    with record_activations(model, layers, **options) as activations:
        model(**(inputs or {"input_ids": random_ids()}))
    return activations


@torch.no_grad()
def logits_of(model, ids: Tensor | None = None) -> Tensor:
    return model(random_ids() if ids is None else ids).logits


@torch.no_grad()
def run_by_hand(model, ids: Tensor, **inputs):
    """The model's outputs, and layers 0 to n: transformers' own, and what the final norm takes."""
    norm = model.model.norm if hasattr(model, "model") else model.transformer.ln_f
    last = []
    hook = norm.register_forward_pre_hook(lambda module, args: last.append(args[0]))
    outputs = model(ids, output_hidden_states=True, **inputs)
    hook.remove()
    return outputs, [*outputs.hidden_states[:-1], last[0]]


def hidden_states(model, ids: Tensor | None = None, **inputs) -> list[Tensor]:
    """Layers 0 to n by other means than ours."""
    return run_by_hand(model, random_ids() if ids is None else ids, **inputs)[1]


def own_hooks(model: torch.nn.Module) -> list:
    """The package's hooks on all modules; those of transformers and of a test are others."""
    kinds = ("_forward_hooks", "_forward_pre_hooks")
    hooks = [hook for m in model.modules() for kind in kinds for hook in getattr(m, kind).values()]
    return [hook for hook in hooks if hook.__module__.startswith("tutorial_utils")]


def stream(output) -> Tensor:
    """The residual stream in what a decoder layer returns, by kind and by version of its own."""
    return output[0] if isinstance(output, tuple) else output


def with_stream(output, hidden: Tensor):
    """What a decoder layer returned, with another residual stream in it."""
    return (hidden, *output[1:]) if isinstance(output, tuple) else hidden


def assert_same(activations: Activations, expected: list[Tensor]) -> None:
    assert list(activations) == list(range(LAYERS + 1))
    for layer, tensor in enumerate(expected):
        assert torch.equal(activations[layer], tensor), layer
