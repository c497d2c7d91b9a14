"""A model's configuration: is it a model that the lessons can read?"""

from __future__ import annotations

from pathlib import Path

import transformers
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoConfig,
    PretrainedConfig,
)

from tutorial_utils.models.errors import OTHERS, plain_errors, remote_code
from tutorial_utils.models.integrity import find_fault


def read_config(source: str | Path, label: str, *, here: bool) -> PretrainedConfig:
    """The configuration of a causal language model; `here` means that no network is needed.

    Raises OSError for one that can't be read, ValueError for a model of another kind.
    """
    if here and (fault := find_fault(source)):
        raise OSError(f"{label} can't be loaded: {fault} {OTHERS}")
    with plain_errors(source, label):
        settings, _ = PretrainedConfig.get_config_dict(str(source), local_files_only=here)
    kind = settings.get("model_type")
    if kind is None:
        raise OSError(f"{label} has no config.json that says what kind of model it is. {OTHERS}")
    if kind not in CONFIG_MAPPING:
        if "AutoConfig" in (settings.get("auto_map") or {}):
            raise remote_code(label)
        raise OSError(
            f"{label} is a kind of model ({kind}) that transformers {transformers.__version__} "
            f"does not know. A newer one may: `pip install -U transformers`. {OTHERS}"
        )
    with plain_errors(source, label):
        config = AutoConfig.from_pretrained(
            str(source), local_files_only=here, trust_remote_code=False
        )
    _check_kind(config, label)
    return config


def _check_kind(config: PretrainedConfig, label: str) -> None:
    """Raise ValueError unless the model reads left to right and predicts the next token."""
    masked = type(config) in MODEL_FOR_MASKED_LM_MAPPING
    if config.is_encoder_decoder:
        kind = "an encoder-decoder model"
    elif masked and not getattr(config, "is_decoder", False):
        kind = "an encoder-only model"  # some load all the same, with a head of random numbers
    elif type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        if "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {}):
            raise remote_code(label)
        kind = "no causal language model"
    else:
        return
    raise ValueError(
        f"{label} is {kind} ({config.model_type}). The lessons read causal language models, which "
        f"predict the next token, such as GPT-2, Llama and Qwen3. {OTHERS}"
    )
