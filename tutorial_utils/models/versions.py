"""Files of a newer transformers, in which this one would overlook something."""

from __future__ import annotations

import warnings
from typing import Any

from packaging.version import InvalidVersion, Version
from transformers import PretrainedConfig, __version__

# These never change what a model computes.
HARMLESS = {"auto_map", "dtype", "quantization_config", "torch_dtype", "transformers_version"}


def parts_of(config: PretrainedConfig) -> dict[str, PretrainedConfig]:
    """The configurations inside a configuration, such as that of the text model of several."""
    return {k: v for k, v in vars(config).items() if isinstance(v, PretrainedConfig)}


def check_version(settings: dict[str, Any], config: PretrainedConfig, label: str) -> None:
    """Raise OSError for settings that would be overlooked in silence; `settings` is config.json.

    transformers keeps every key, whether or not a model's code reads it. From 4 to 5 the base of
    the rotary positions moved to a key of its own: 4 would take its default in place of the file's.
    A newer version of the same number in front gives a warning.
    """
    lost = _overlooked(settings, config)
    if not lost:
        return
    written = str(settings.get("transformers_version"))
    try:
        made, own = Version(written), Version(__version__)
    except InvalidVersion:
        made = own = Version(__version__)
    message = (
        f"{label} was written by transformers {written}, and {__version__}, which is installed "
        f"here, overlooks in its config.json: {', '.join(lost)}. `pip install -U transformers`, "
        "then restart the kernel"
    )
    rope = own.major < 5 and any(name.endswith("rope_parameters") for name in lost)
    if made.major > own.major or rope:
        raise OSError(f"{message}. The model would compute something else.")
    if made > own:
        warnings.warn(f"{message}, if the model behaves strangely.", stacklevel=4)


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
    for name, part in parts_of(config).items():
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
