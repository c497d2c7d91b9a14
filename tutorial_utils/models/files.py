"""A model's files, in a folder or on the hub: are all there?"""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi, constants, errors
from packaging.version import Version
from transformers import __version__
from transformers.utils import is_peft_available

from tutorial_utils.models.errors import OTHERS, not_in_cache, plain_errors
from tutorial_utils.models.integrity import snapshot, weight_files

NEEDED = {
    "configuration": ["config.json"],
    "weights": ["*.safetensors"],
    "tokenizer": ["tokenizer.json", "*.model", "vocab.*", "*.tiktoken"],
}
# Since 5, transformers can be told to leave an adapter in a folder alone.
ADAPTERS_WIN = Version(__version__) < Version("5") and is_peft_available()
FORMATS = (
    "Weights are loaded in safetensors format alone: *.bin files can run code, *.gguf needs "
    "another program."
)


def check_folder(folder: Path, label: str, *parts: str) -> None:
    """Raise OSError unless the folder holds these parts of a model, named as in NEEDED."""
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise OSError(f"{label} {what}. {OTHERS}")
    names = [file.name for file in folder.iterdir()]
    if "weights" in parts:
        _refuse_adapter_alone(names, label)
    if "weights" in parts and "adapter_config.json" in names and ADAPTERS_WIN:
        raise OSError(
            f"{label} holds an adapter beside whole weights, and transformers {__version__} would "
            "load what adapter_config.json names in their place. Move that file elsewhere to load "
            "the folder's own weights."
        )
    for part in parts:
        if not any(file for pattern in NEEDED[part] for file in folder.glob(pattern)):
            raise OSError(
                f"{label} holds no whole model: there is no {part} ({' or '.join(NEEDED[part])}). "
                "A model's folder, as save_pretrained() of a model and of its tokenizer write it, "
                f"has config.json, *.safetensors and tokenizer.json. {FORMATS} {OTHERS}"
            )


def _refuse_adapter_alone(names: list[str], label: str) -> None:
    """What a training with LoRA leaves: changes, without the model that they are for."""
    own = [name for name in names if name.endswith(".safetensors") and "adapter" not in name]
    if "adapter_config.json" in names and not own:
        raise OSError(
            f"{label} holds an adapter and no whole model: its adapter_config.json names the model "
            "that it changes. Merge the two once, in Python, and load the new folder: `from peft "
            "import AutoPeftModelForCausalLM`, then `AutoPeftModelForCausalLM.from_pretrained(THIS)"
            '.merge_and_unload().save_pretrained("merged")`; save the tokenizer there, too. '
            f"{OTHERS}"
        )


def check_hub(name: str, label: str) -> None:
    """Ask the hub for a model's list of files, before the libraries ask for one after another.

    With no network, their own tries take minutes; for weights in another format, they ask a third
    machine to convert them. Raises OSError where the hub can't be asked, or files are missing.
    """
    if constants.HF_HUB_OFFLINE:
        raise not_in_cache(label)
    with plain_errors(name, label):
        try:
            files = HfApi().model_info(name, timeout=10).siblings or []
        except errors.HfHubHTTPError:
            return  # the hub is there; what it says comes again when the files are asked for
    names = [file.rfilename for file in files]
    _refuse_adapter_alone(names, label)
    if names and "config.json" not in names:
        raise OSError(f"{label} has no config.json that says what kind of model it is. {OTHERS}")
    if names and not any(name.endswith(".safetensors") for name in names):
        raise OSError(f"{label} has no weights in safetensors format. {FORMATS} {OTHERS}")


def is_here(source: str | Path, label: str) -> bool:
    """Whether a model lies on this machine wholly, so that no network is needed."""
    if isinstance(source, Path):
        return True
    with plain_errors(source, label):
        folder = snapshot(source)
        needed = {*weight_files(folder), "tokenizer_config.json"} if folder else set()
        return folder is not None and all((folder / name).is_file() for name in needed)
