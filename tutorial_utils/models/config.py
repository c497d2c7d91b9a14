"""Read a model's configuration, and refuse models that the lessons cannot read."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version
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

ATTENTION = (None, "eager", "sdpa")  # implementations that need no package besides torch
# These keys never change what a model computes.
HARMLESS = {"auto_map", "dtype", "quantization_config", "torch_dtype", "transformers_version"}
# Outputs with names, and no extra outputs that nobody asked for.
OUTPUT_SETTINGS = {
    "return_dict": True,
    "torchscript": False,
    "output_attentions": False,
    "output_hidden_states": False,
}


def read_config(source: str | Path, label: str, *, on_disk: bool) -> PretrainedConfig:
    """Read the configuration of a causal language model; `on_disk`: without the network.

    Two kinds of its settings are replaced: those that change the form of the outputs, so that every
    model returns the same, and an implementation of attention that needs another package or a GPU,
    with a warning.

    Raises OSError if the configuration can't be read, ValueError for another kind of model.
    """
    if on_disk and (fault := find_fault(source)):
        raise OSError(f"{label} could not be loaded: {fault} {OTHERS}")
    with plain_errors(source, label):
        settings, _ = PretrainedConfig.get_config_dict(str(source), local_files_only=on_disk)
    kind = settings.get("model_type")
    if not isinstance(kind, str):
        raise OSError(f"{label} has no config.json, which says what kind of model it is. {OTHERS}")
    if kind not in CONFIG_MAPPING:
        if "AutoConfig" in (settings.get("auto_map") or {}):
            raise remote_code(label)
        raise OSError(
            f"{label} is a kind of model ({kind}) that transformers {__version__} does not know. "
            f"A newer version may know it: `pip install -U transformers`. {OTHERS}"
        )
    with plain_errors(source, label):
        options = {"local_files_only": on_disk, "trust_remote_code": False}
        config = AutoConfig.from_pretrained(str(source), **options)
    _check_kind(config, label)
    _check_version(settings, config, label)
    for part in (config, *_parts(config).values()):
        for name, value in OUTPUT_SETTINGS.items():
            if getattr(part, name, value) != value:
                setattr(part, name, value)
        if getattr(part, "_attn_implementation", None) not in ATTENTION:
            part._attn_implementation = None
    asked = settings.get("attn_implementation") or settings.get("_attn_implementation")
    if asked not in ATTENTION:
        instead = "torch's own attention is used instead, which runs everywhere"
        warnings.warn(
            f"{label} asks for the attention implementation {asked}; {instead}", stacklevel=3
        )
    return config


def _check_kind(config: PretrainedConfig, label: str) -> None:
    """Raise ValueError unless the model reads left to right and predicts the next token."""
    masked = type(config) in MODEL_FOR_MASKED_LM_MAPPING
    if config.is_encoder_decoder:
        kind = "an encoder-decoder model"
    elif masked and not getattr(config, "is_decoder", False):
        kind = "an encoder-only model"  # some would load, with a random head
    elif type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        if "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {}):
            raise remote_code(label)
        kind = "not a causal language model"
    else:
        return
    raise ValueError(
        f"{label} is {kind} ({config.model_type}). The lessons read causal language models, which "
        f"predict the next token, such as GPT-2, Llama and Qwen3. {OTHERS}"
    )


def _check_version(settings: dict[str, Any], config: PretrainedConfig, label: str) -> None:
    """Raise OSError, or warn, if this transformers ignores settings that a newer one wrote.

    transformers keeps every key, whether or not the model's code reads it. transformers 5 moved the
    base of the rotary positions to another key; transformers 4 ignores that key and computes with
    its own default. That, and a newer major version, is an error.
    """
    written_by, installed = str(settings.get("transformers_version")), Version(__version__)
    try:
        writer = Version(written_by)
    except InvalidVersion:
        writer = installed
    ignored = _ignored_keys(settings, config)
    rope = installed.major < 5 and any(name.endswith("rope_parameters") for name in ignored)
    if not ignored or (writer <= installed and not rope):
        return
    message = (
        f"{label} was written by transformers {written_by}. transformers {installed}, which is "
        f"installed here, ignores these keys of its config.json: {', '.join(ignored)}. So the "
        "model may compute something else. `pip install -U transformers`, then restart the kernel"
    )
    if rope or writer.major > installed.major:
        raise OSError(message)
    warnings.warn(message, stacklevel=4)


def _parts(config: PretrainedConfig) -> dict[str, PretrainedConfig]:
    """The configurations inside a configuration, such as that of the text model in it."""
    return {k: v for k, v in vars(config).items() if isinstance(v, PretrainedConfig)}


def _ignored_keys(settings: dict[str, Any], config: PretrainedConfig) -> list[str]:
    """The keys of config.json that set something but that the class of `config` does not know."""
    named = {
        name: value
        for name, value in settings.items()
        if name not in HARMLESS and name[0] != "_" and value not in (None, False, "", [], {})
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some keys are known and deprecated
            default = type(config)()
            # A key that is missing from `config` too was read, and is stored under another name.
            ignored = [n for n in named if not hasattr(default, n) and hasattr(config, n)]
    except Exception:  # this class can't be created without settings
        return []
    if "rope_parameters" in ignored and _same_rope(named["rope_parameters"], config):
        ignored.remove("rope_parameters")
    for name, part in _parts(config).items():
        inner = settings.get(name)
        ignored += [f"{name}.{key}" for key in _ignored_keys(inner, part)] if inner else []
    return ignored


def _same_rope(new: dict[str, Any], config: PretrainedConfig) -> bool:
    """Whether `new`, as transformers 5 writes it, sets the same rotary positions as `config`."""
    rest = {name: value for name, value in new.items() if name != "rope_theta"}
    return (
        rest == {"rope_type": "default"}
        and not getattr(config, "rope_scaling", None)
        and new.get("rope_theta") == getattr(config, "rope_theta", None)
    )
