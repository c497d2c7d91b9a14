"""A model's configuration: is it a model that the lessons can read?"""

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

ATTENTION = (None, "eager", "sdpa")  # what needs torch alone
# These keys never change what a model computes.
HARMLESS = {"auto_map", "dtype", "quantization_config", "torch_dtype", "transformers_version"}
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
    with plain_errors(source, label):
        only = {"local_files_only": here, "trust_remote_code": False}
        config = AutoConfig.from_pretrained(str(source), **only)
    _check_kind(config, label)
    _check_version(settings, config, label)
    for part in (config, *_parts(config).values()):
        for name, value in PLAIN.items():
            if getattr(part, name, value) != value:
                setattr(part, name, value)
        if getattr(part, "_attn_implementation", None) not in ATTENTION:
            part._attn_implementation = None
    asked = settings.get("attn_implementation") or settings.get("_attn_implementation")
    if asked not in ATTENTION:
        instead = "that of torch is used, which runs everywhere"
        warnings.warn(f"{label} asks for the attention of {asked}; {instead}", stacklevel=3)
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


def _check_version(settings: dict[str, Any], config: PretrainedConfig, label: str) -> None:
    """Raise OSError for what a newer transformers wrote and this one overlooks; or warn of it.

    transformers keeps every key, whether or not the model's code reads it. In 5 the base of the
    rotary positions moved to another key: 4 computes with its default in place of the file's.
    """
    written, own = str(settings.get("transformers_version")), Version(__version__)
    try:
        made = Version(written)
    except InvalidVersion:
        made = own
    lost = _overlooked(settings, config)
    rope = own.major < 5 and any(name.endswith("rope_parameters") for name in lost)
    if not lost or (made <= own and not rope):
        return
    message = (
        f"{label} was written by transformers {written}, and {own}, which is installed here, "
        f"overlooks in its config.json: {', '.join(lost)}. It may compute something else. "
        "`pip install -U transformers`, then restart the kernel"
    )
    if rope or made.major > own.major:
        raise OSError(message)
    warnings.warn(message, stacklevel=4)


def _parts(config: PretrainedConfig) -> dict[str, PretrainedConfig]:
    """The configurations inside a configuration, such as that of the text model of several."""
    return {k: v for k, v in vars(config).items() if isinstance(v, PretrainedConfig)}


def _overlooked(settings: dict[str, Any], config: PretrainedConfig) -> list[str]:
    """The keys of config.json that mean something and that the class of `config` does not have."""
    named = {
        name: value
        for name, value in settings.items()
        if name not in HARMLESS and name[0] != "_" and value not in (None, False, "", [], {})
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some keys are known and deprecated
            own = type(config)()
            # What `config` does not have either was read, and put elsewhere.
            lost = [n for n in named if not hasattr(own, n) and hasattr(config, n)]
    except Exception:  # a class that can't be made without its settings
        return []
    if "rope_parameters" in lost and _same_rope(named["rope_parameters"], config):
        lost.remove("rope_parameters")
    for name, part in _parts(config).items():
        inner = settings.get(name)
        lost += [f"{name}.{key}" for key in _overlooked(inner, part)] if inner else []
    return lost


def _same_rope(new: dict[str, Any], config: PretrainedConfig) -> bool:
    """Whether the rotary positions of transformers 5 are what the older keys say as well."""
    rest = {name: value for name, value in new.items() if name != "rope_theta"}
    return (
        rest == {"rope_type": "default"}
        and not getattr(config, "rope_scaling", None)
        and new.get("rope_theta") == getattr(config, "rope_theta", None)
    )
