"""What to say when a model can't be loaded: what was wrong, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import transformers
from huggingface_hub import HfApi, constants, errors
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

OTHERS = (
    'Models that need no account: load_model("Qwen/Qwen3-0.6B"), or load_model("pocket-llama"), '
    "the small one that comes with the series and needs no network."
)
NEEDED = {
    "configuration": ["config.json"],
    "weights": ["*.safetensors"],
    "tokenizer": ["tokenizer.json", "*.model", "vocab.*", "*.tiktoken"],
}  # the files of a model
NETWORK_LIBRARIES = {"httpx", "httpx2", "requests", "urllib3", "socket"}


@contextmanager
def plain_errors(source: str | Path, label: str, no_room: str = "") -> Iterator[None]:
    """Turn what transformers and huggingface_hub raise inside the block into plain words.

    `source` is a folder (Path) or a name on the hub (str), `label` what messages call it, and
    `no_room` the message for memory that runs out.
    """
    try:
        yield
    except Exception as error:
        raise _explain(error, source, label, no_room) from error


def _explain(error: Exception, source: str | Path, label: str, no_room: str) -> Exception:
    """The exception to raise in place of `error`.

    transformers wraps the hub's errors, so the reasons behind an error are looked at too. Where it
    gives no type of its own, its words have to do; the tests hold them to its versions.
    """
    reasons: list[BaseException] = []
    reason: BaseException | None = error
    while reason is not None:
        reasons.append(reason)
        reason = reason.__cause__ or reason.__context__

    def because_of(*kinds: type[BaseException]) -> bool:
        return any(isinstance(reason, kinds) for reason in reasons)

    words, on_hub = " ".join(str(error).split()), not isinstance(source, Path)
    if because_of(MemoryError, torch.cuda.OutOfMemoryError) or any(
        part in words for part in ("out of memory", "allocate memory")
    ):
        return MemoryError(no_room or f"there is not enough memory to load {label}.")
    if "trust_remote_code" in words:
        return remote_code(label)
    if because_of(errors.GatedRepoError):
        return OSError(
            f"{label} is gated: its owner lets in only those who asked. Ask for access at "
            f"https://huggingface.co/{source}, then log in from a terminal with `hf auth login`, "
            f"and run this again. {OTHERS}"
        )
    if because_of(errors.RepositoryNotFoundError):
        return OSError(
            f"there is no model {label} on huggingface.co, or it is private. Check the spelling: "
            "a name looks like 'Qwen/Qwen3-0.6B'. For a private model, log in from a terminal "
            f"with `hf auth login`. {OTHERS}"
        )
    if because_of(errors.HFValidationError):
        return OSError(
            f"{label} is neither a folder that is there nor a name that huggingface.co allows: "
            f"a name looks like 'Qwen/Qwen3-0.6B'. {OTHERS}"
        )
    answers = [r for r in reasons if isinstance(r, errors.HfHubHTTPError)]
    if answers and not because_of(errors.LocalEntryNotFoundError):
        return OSError(
            f"{label} could not be fetched: {' '.join(str(answers[-1]).split())[:300]}. If that is "
            "about your access token, log in again from a terminal with `hf auth login`; if not, "
            f"try again later. {OTHERS}"
        )
    network = because_of(errors.LocalEntryNotFoundError, ConnectionError) or any(
        type(reason).__module__.split(".")[0] in NETWORK_LIBRARIES for reason in reasons
    )
    if network or (constants.HF_HUB_OFFLINE and "model.safetensors" in words and on_hub):
        why = " (HF_HUB_OFFLINE is set)" if constants.HF_HUB_OFFLINE else ""
        return OSError(
            f"{label} is not, or not wholly, in the cache of this machine "
            f"({constants.HF_HUB_CACHE}), and huggingface.co can't be reached{why}. Run this "
            f"once with a network: the download is kept. {OTHERS}"
        )
    if "does not recognize this architecture" in words:
        return OSError(
            f"{label} is a kind of model that transformers {transformers.__version__} does not "
            f"know. A newer one may: `pip install -U transformers`. {OTHERS}"
        )
    if "Unrecognized model" in words:
        return OSError(f"{label} has no config.json that says what kind of model it is. {OTHERS}")
    if "model.safetensors" in words:
        return OSError(
            f"{label} has no weights in safetensors format. Other formats are not loaded: *.bin "
            f"files can run code, *.gguf needs another program. {OTHERS}"
        )
    return OSError(f"{label} could not be loaded: {type(error).__name__}: {words[:300]}")


def check_hub(name: str) -> None:
    """Ask the hub for a model's list of files, before the libraries ask for one after another.

    With no network, their own tries take minutes; for weights in another format, they ask a third
    machine to convert them. Raises what they would.
    """
    try:
        files = HfApi().model_info(name, timeout=10).siblings or []
    except errors.HfHubHTTPError:
        return  # the hub is there; what it says comes again when the files are asked for
    names = [file.rfilename for file in files]
    if "config.json" in names and not any(name.endswith(".safetensors") for name in names):
        raise OSError("no model.safetensors")


def remote_code(label: str) -> ValueError:
    """For a model that is no part of transformers and brings Python files along."""
    return ValueError(
        f"{label} asks to run Python code that comes with it, from its own repository. This series "
        "leaves that off (trust_remote_code=False): such code can do anything on your machine. "
        f"Take a model that transformers itself knows. {OTHERS}"
    )


def check_kind(config: transformers.PretrainedConfig, label: str) -> None:
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
                "has config.json, *.safetensors and tokenizer.json. Other formats of weights are "
                f"not loaded: *.bin files can run code, *.gguf needs another program. {OTHERS}"
            )
