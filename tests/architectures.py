"""Every model type that AutoModelForCausalLM knows, built tiny, offline, with random weights.

A generic rule makes the default configuration small, and a short table names the exceptions.
"""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PretrainedConfig

from tiny_models import NumberTokenizer
from tutorial_utils import decoding_steps, next_token_logits

BATCH, SEQ, VOCAB, LAYERS = 2, 7, 128, 4

# The tables below, and those of the tests, were made with this version. With another one a type
# that is in no table is skipped with its reason; what can be built and read must still be right.
TABLES_HOLD = transformers.__version__.startswith("5.23.")

# What these settings are called, they are called in nearly every configuration.
TINY = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "max_position_embeddings": 128,
    **dict.fromkeys(["num_hidden_layers", "num_encoder_layers", "num_decoder_layers"], LAYERS),
    **dict.fromkeys(["encoder_layers", "decoder_layers"], LAYERS),
    **dict.fromkeys(["encoder_ffn_dim", "decoder_ffn_dim"], 48),
    **dict.fromkeys(["num_attention_heads", "encoder_attention_heads"], 4),
    **dict.fromkeys(["decoder_attention_heads", "num_encoder_attention_heads"], 4),
    **dict.fromkeys(["num_decoder_attention_heads"], 4),
    "num_key_value_heads": 4,
    "n_mamba_heads": 2,
    **dict.fromkeys(["head_dim", "mamba_n_heads", "mamba_d_head"], 8),
    **dict.fromkeys(["qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"], 8),
    **dict.fromkeys(["n_group", "topk_group"], 1),
    "rotary_dim": 4,
    **dict.fromkeys(["num_experts", "num_local_experts", "n_routed_experts"], 4),
    "num_experts_per_tok": 2,
    **dict.fromkeys(["moe_intermediate_size", "q_lora_rank", "kv_lora_rank"], 16),
    "is_decoder": True,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

# Settings that the rule above gets wrong, by the configuration's own model type.
GEMMA_PER_LAYER = {  # a table with a row for each word and layer, of a size of its own
    "num_kv_shared_layers": 0,
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": VOCAB,
}
EXCEPTIONS = {
    # one attention layer at least, or the KV cache has nothing to count tokens with
    "bamba": {"attn_layer_indices": [1]},
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"] * 2},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2},
    "zamba": {"layers_block_type": ["linear_attention", "hybrid"] * 2},
    # sizes that must fit other sizes
    "dots3_note_vision_encoder": {"adapter_in_dim": 32, "adapter_out_dim": 32},
    "dots3_note_audio_encoder": {"adapter_input_size": 32, "adapter_out_dim": 32},
    "dory": {"n_input_layers": 1, "n_output_layers": 1},
    "falcon_h1": {"mamba_d_ssm": 64},
    "gemma3n_text": GEMMA_PER_LAYER,
    "gemma4_text": GEMMA_PER_LAYER,
    "longcat_flash": {"num_layers": LAYERS},  # each of its layers counts as two
    "mamba2": {"num_heads": 8},
    "mimo_v2_flash": {"num_key_value_heads": 2, "head_dim": 16},  # doubled; a third rotated
    "mllama_text_model": {"cross_attention_layers": [1]},
    "reformer": {"axial_pos_embds": False},
    "xlstm": {"hidden_size": 128, "num_heads": 2},
    "zaya": {"num_experts_per_tok": 1},
    # what TINY leaves big
    "blt": {"encoder_hash_byte_group_vocab": 100, "patch_in_forward": False},
    "kimi_linear": {"linear_head_dim": 8, "linear_num_heads": 4},
    # settings with no default that builds
    "cohere_compass_text": {
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": 1e4}
            for kind in ("full_attention", "sliding_attention")
        }
    },
    "dbrx": {"attn_config": {"kv_n_heads": 2, "clip_qkv": 8, "rope_theta": 1e4}},
    "dots1": {"n_shared_experts": 1},
    "lfm2_moe": {"layer_types": ["conv", "conv", "full_attention", "conv"]},
    "qwen4_exp_text": {
        "hc_lowrank": 8,
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 8,
        "indexer_compress_ratio": 2,
    },
    "xmod": {"default_language": "en_XX"},
}


def small_config(config_class: type, extra: dict | None = None) -> PretrainedConfig:
    """The default configuration of this class with everything in TINY made small."""
    default = config_class()

    def has(name: str) -> bool:
        try:  # some configurations raise errors of their own for a name
            getattr(default, name)
        except Exception:
            return False
        return not isinstance(getattr(config_class, name, None), property)

    settings = {}
    if has("num_hidden_layers"):  # a list with an entry for each layer: keep one of each kind
        for name, value in default.to_dict().items():
            if isinstance(value, list) and LAYERS < len(value) == default.num_hidden_layers:
                kinds = list({json.dumps(kind): kind for kind in value}.values())
                settings[name] = (kinds + value)[:LAYERS]
    names = config_class.attribute_map
    settings |= {names.get(name, name): value for name, value in TINY.items() if has(name)}
    extra = EXCEPTIONS.get(config_class.model_type, {}) | (extra or {})
    for name in config_class.sub_configs:
        part = getattr(default, name, None)
        if isinstance(part, PretrainedConfig):
            settings[name] = small_config(type(part), extra.pop(name, None)).to_dict()
    return config_class(**settings | extra)


def build(model_type: str, **options: object) -> torch.nn.Module:
    torch.manual_seed(0)
    config = small_config(CONFIG_MAPPING[model_type])
    model_class = AutoModelForCausalLM._model_mapping[type(config)]
    if not isinstance(config, model_class.config_class):  # the model is one part of several
        parts = [getattr(config, name) for name in config.sub_configs]
        config = next((p for p in parts if isinstance(p, model_class.config_class)), config)
    return model_class._from_config(config, **options).eval()


def build_if_known(model_type: str) -> torch.nn.Module:
    """For a test of one type: skipped where this version of transformers lacks it."""
    try:
        return build(model_type)
    except (KeyError, TypeError, ValueError) as error:
        if TABLES_HOLD:
            raise
        pytest.skip(f"this transformers does not build {model_type}: {error!r}")


def inputs_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """What the model takes: token ids, and what a few need besides."""
    config = model.config.get_text_config(decoder=True)
    rows = BATCH * getattr(config, "num_codebooks", 1)  # Musicgen adds up its codebooks
    if config.model_type.startswith("moshi"):
        rows = BATCH
    generator = torch.Generator().manual_seed(1)
    inputs = {"input_ids": torch.randint(3, VOCAB, (rows, SEQ), generator=generator)}
    if config.model_type == "mllama_text_model":  # without an image it leaves layers out
        inputs["cross_attention_states"] = torch.randn(BATCH, 5, 32, generator=generator)
    return inputs


def check_rows(model: torch.nn.Module) -> None:
    """Unequal prompts in a batch, and tokens read with a cache, give what plain passes give.

    The model is changed.
    """
    if len(inputs_of(model)) > 1 or hasattr(model.config.get_text_config(), "num_codebooks"):
        return  # it reads more than the ids of a text
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():  # as if trained: the padding has something to say
            parameter += 0.2 * torch.randn_like(parameter)
        prompts = ["5 9 17 30", "8 3 77 41 20 60 5 66 90"]
        for row, prompt in zip(next_token_logits(model, NumberTokenizer(), prompts), prompts):
            ids = torch.tensor([[int(word) for word in prompt.split()]])
            alone = model(ids).logits[0, -1].float().softmax(dim=-1)
            torch.testing.assert_close(row.softmax(dim=-1), alone, rtol=1e-3, atol=1e-5)
        model.generation_config.eos_token_id = None
        read = [int(word) for word in prompts[0].split()]
        for step in decoding_steps(model, NumberTokenizer(), prompts[0], max_new_tokens=3):
            plain = model(torch.tensor([read])).logits[0, -1].float().softmax(dim=-1)
            torch.testing.assert_close(step.probs, plain, rtol=1e-2, atol=1e-4)
            read.append(step.token_id)
