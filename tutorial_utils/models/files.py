"""A model's files, in a folder or on the hub: which ones there must be."""

from __future__ import annotations

import json
from pathlib import Path

from huggingface_hub import HfApi, errors, try_to_load_from_cache

from tutorial_utils.models.errors import OTHERS, plain_errors

NEEDED = {
    "configuration": ["config.json"],
    "weights": ["*.safetensors"],
    "tokenizer": ["tokenizer.json", "*.model", "vocab.*", "*.tiktoken"],
}
FORMATS = (
    "Weights are loaded in safetensors format alone: *.bin files can run code, *.gguf needs "
    "another program."
)


def check_folder(folder: Path, label: str, *parts: str) -> None:
    """Raise OSError unless the folder holds these parts of a model, named as in NEEDED."""
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise OSError(f"{label} {what}. {OTHERS}")
    for part in parts:
        if not any(file for pattern in NEEDED[part] for file in folder.glob(pattern)):
            raise OSError(
                f"{label} holds no whole model: there is no {part} ({' or '.join(NEEDED[part])}). "
                "A model's folder, as save_pretrained() of a model and of its tokenizer write it, "
                f"has config.json, *.safetensors and tokenizer.json. {FORMATS} {OTHERS}"
            )


def check_hub(name: str, label: str) -> None:
    """Ask the hub for a model's list of files, before the libraries ask for one after another.

    With no network, their own tries take minutes; for weights in another format, they ask a third
    machine to convert them. Raises OSError where the hub can't be asked, or files are missing.
    """
    with plain_errors(name, label):
        try:
            files = HfApi().model_info(name, timeout=10).siblings or []
        except errors.HfHubHTTPError:
            return  # the hub is there; what it says comes again when the files are asked for
    names = [file.rfilename for file in files]
    if names and "config.json" not in names:
        raise OSError(f"{label} has no config.json that says what kind of model it is. {OTHERS}")
    if names and not any(name.endswith(".safetensors") for name in names):
        raise OSError(f"{label} has no weights in safetensors format. {FORMATS} {OTHERS}")


def is_here(source: str | Path, label: str) -> bool:
    """Whether a model lies on this machine wholly, so that no network is needed."""
    if isinstance(source, Path):
        return True
    with plain_errors(source, label):
        config = try_to_load_from_cache(source, "config.json")
        if not isinstance(config, str):
            return False
        folder = Path(config).parent
        index = folder / "model.safetensors.index.json"  # of weights in several files
        weights = {"model.safetensors"}
        if index.is_file():
            weights = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        return all((folder / file).is_file() for file in weights | {"tokenizer_config.json"})
