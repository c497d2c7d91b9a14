"""Check that a model's files are all there, in a folder or on the hub."""

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
# With peft, transformers 4 always loads an adapter in the folder; from 5 on it can be told not to.
ALWAYS_LOADS_ADAPTER = Version(__version__) < Version("5") and is_peft_available()
FORMATS = (
    "Only weights in safetensors format are loaded, because a *.bin file can run code. To load a "
    "*.gguf file, give its path."
)


def check_folder(folder: Path, label: str, *parts: str) -> None:
    """Raise OSError unless the folder holds these parts of a model, named as in NEEDED."""
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise OSError(f"{label} {what}. {OTHERS}")
    names = [file.name for file in folder.iterdir()]
    if "weights" in parts:
        _refuse_adapter_alone(names, label)
    if "weights" in parts and "adapter_config.json" in names and ALWAYS_LOADS_ADAPTER:
        raise OSError(
            f"{label} holds an adapter beside whole weights, and transformers {__version__} would "
            "load the model that adapter_config.json names instead of these weights. Move that "
            "file elsewhere to load the folder's own weights."
        )
    for part in parts:
        if not any(file for pattern in NEEDED[part] for file in folder.glob(pattern)):
            raise OSError(
                f"{label} holds no whole model: it has no {part} ({' or '.join(NEEDED[part])}). "
                "A model's folder has config.json, *.safetensors and tokenizer.json: call "
                "save_pretrained() on the model and on its tokenizer to write them. "
                f"{FORMATS} {OTHERS}"
            )


def _refuse_adapter_alone(names: list[str], label: str) -> None:
    """Raise OSError for an adapter alone, such as LoRA training saves: it is only a change."""
    own = [name for name in names if name.endswith(".safetensors") and "adapter" not in name]
    if "adapter_config.json" in names and not own:
        raise OSError(
            f"{label} holds an adapter and no whole model: its adapter_config.json names the model "
            "that it changes. Merge the two once, in Python, then load the new folder: `from peft "
            "import AutoPeftModelForCausalLM`, then `AutoPeftModelForCausalLM.from_pretrained(THIS)"
            '.merge_and_unload().save_pretrained("merged")`; save the tokenizer there, too. '
            f"{OTHERS}"
        )


def check_hub(name: str, label: str) -> None:
    """Ask the hub for a model's list of files before transformers asks for each file.

    Without a network, transformers would try for minutes. For weights in another format, it would
    ask a server to convert them. Raises OSError if the hub can't be asked or files are missing.
    """
    if constants.HF_HUB_OFFLINE:
        raise not_in_cache(label)
    with plain_errors(name, label):
        try:
            files = HfApi().model_info(name, timeout=10).siblings or []
        except errors.HfHubHTTPError:
            return  # the hub answers; its refusal comes again, and is explained, at the download
    names = [file.rfilename for file in files]
    _refuse_adapter_alone(names, label)
    if names and "config.json" not in names:
        raise OSError(f"{label} has no config.json, which says what kind of model it is. {OTHERS}")
    if names and not any(name.endswith(".safetensors") for name in names):
        raise OSError(f"{label} has no weights in safetensors format. {FORMATS} {OTHERS}")


def is_on_disk(source: str | Path, label: str) -> bool:
    """Whether all files of a model are on this machine, so that no network is needed."""
    if isinstance(source, Path):
        return True
    with plain_errors(source, label):
        folder = snapshot(source)
        needed = {*weight_files(folder), "tokenizer_config.json"} if folder else set()
        return folder is not None and all((folder / name).is_file() for name in needed)
