"""A model's configuration: is it a model that the lessons can read?"""

from __future__ import annotations

import warnings
from pathlib import Path

from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoConfig,
    PretrainedConfig,
    __version__,
)

from tutorial_utils.models.errors import OTHERS, plain_errors, remote_code
from tutorial_utils.models.integrity import find_fault
from tutorial_utils.models.versions import check_version, parts_of

ATTENTION = ("eager", "sdpa")  # what needs torch alone


# Outputs with names, and nothing computed that nobody asked for.
PLAIN = {
    "return_dict": True,
    "torchscript": False,
    "output_attentions": False,
    "output_hidden_states": False,
}


def read_config(source: str | Path, label: str, *, here: bool) -> PretrainedConfig:
    """The configuration of a causal language model; `here` means that no network is needed.

    Its settings of the form of outputs are left out, so that every model gives the same, and so is
    an implementation of attention that needs another package or a GPU (with a warning).

    Raises OSError for one that can't be read, ValueError for a model of another kind.
    """
    if here and (fault := find_fault(source)):
        raise OSError(f"{label} could not be loaded: {fault} {OTHERS}")
    with plain_errors(source, label):
        settings, _ = PretrainedConfig.get_config_dict(str(source), local_files_only=here)
    kind = settings.get("model_type")
    if not isinstance(kind, str):
        raise OSError(f"{label} has no config.json that says what kind of model it is. {OTHERS}")
    if kind not in CONFIG_MAPPING:
        if "AutoConfig" in (settings.get("auto_map") or {}):
            raise remote_code(label)
        raise OSError(
            f"{label} is a kind of model ({kind}) that transformers {__version__} does not know. "
            f"A newer one may: `pip install -U transformers`. {OTHERS}"
        )
    asked = settings.get("attn_implementation") or settings.get("_attn_implementation")
    options = {**PLAIN, "attn_implementation": asked if asked in ATTENTION else None}
    with plain_errors(source, label):
        config = AutoConfig.from_pretrained(
            str(source), local_files_only=here, trust_remote_code=False, **options
        )
    _check_kind(config, label)
    check_version(settings, config, label)
    for part in (config, *parts_of(config).values()):
        for name, value in PLAIN.items():
            if getattr(part, name, value) != value:
                setattr(part, name, value)
        used = getattr(part, "_attn_implementation", None)
        if used is not None and used not in ATTENTION:
            part._attn_implementation = None
            asked = used
    if asked and asked not in ATTENTION:
        warnings.warn(
            f"{label} asks for the attention of {asked}; transformers' own is used instead, which "
            "runs everywhere",
            stacklevel=3,
        )
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
