"""What to say when a model can't be loaded: what was wrong, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import transformers
from huggingface_hub import constants, errors, list_repo_files
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

OTHERS = (
    'Models that need no account: load_model("Qwen/Qwen3-0.6B"), or load_model("pocket-llama"), '
    "the small one that comes with the series and needs no network."
)
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

    words = " ".join(str(error).split())
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
    if _no_network(reasons, words, source):
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


def _no_network(reasons: list[BaseException], words: str, source: str | Path) -> bool:
    """Whether a model on the hub can't be loaded because the hub can't be reached."""
    if isinstance(source, Path):
        return False
    kinds = (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, ConnectionError)
    for reason in reasons:
        if isinstance(reason, kinds) or type(reason).__module__.split(".")[0] in NETWORK_LIBRARIES:
            return True
    if "model.safetensors" not in words:
        return False
    try:  # transformers says the same of weights that are not there and of a hub that is not
        list_repo_files(source)
    except Exception:
        return True
    return False


def remote_code(label: str) -> ValueError:
    """For a model that is no part of transformers and brings Python files along."""
    return ValueError(
        f"{label} asks to run Python code that comes with it, from its own repository. This series "
        "leaves that off (trust_remote_code=False): such code can do anything on your machine. "
        f"Take a model that transformers itself knows. {OTHERS}"
    )


def check_kind(config: transformers.PretrainedConfig, label: str) -> None:
    """Raise ValueError unless the model reads left to right and predicts the next token."""
    wanted = "Lessons read causal language models, which predict the next token"
    if config.is_encoder_decoder:
        kind = "an encoder-decoder model"
    elif type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        if "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {}):
            raise remote_code(label)
        kind = (
            "an encoder-only model"
            if type(config) in MODEL_FOR_MASKED_LM_MAPPING
            else "another kind of model"
        )
    elif type(config) in MODEL_FOR_MASKED_LM_MAPPING and not getattr(config, "is_decoder", False):
        kind = "an encoder-only model"  # loads with a head for which there are no weights
    else:
        return
    raise ValueError(
        f"{label} is {kind} ({config.model_type}). {wanted}, such as GPT-2, Llama or Qwen3. {OTHERS}"
    )


def check_folder(folder: Path, label: str) -> None:
    """Raise OSError unless the folder holds a model."""
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise OSError(f"{label} {what}. {OTHERS}")
    for what, pattern in (("configuration", "config.json"), ("weights", "*.safetensors")):
        if not list(folder.glob(pattern)):
            raise OSError(
                f"{label} holds no model: there is no {what} ({pattern}). A model's folder, as "
                "save_pretrained() writes it, has config.json, *.safetensors and tokenizer.json. "
                "Other formats of weights are not loaded: *.bin files can run code, *.gguf needs "
                f"another program. {OTHERS}"
            )


def no_room(label: str, dtype: torch.dtype, needed: int, free: int, where: str) -> str:
    """The message for a model that does not fit; `needed` and `free` are in bytes."""
    ways = ["take a smaller model"]
    if dtype == torch.float32:
        ways.append('take half the bytes with dtype="bfloat16"')
    if not where.startswith("cpu"):
        ways.append('use the slower device="cpu"')
    return (
        f"there is not enough memory for {label}: its weights need {needed / 2**30:.1f} GiB in "
        f"{str(dtype).removeprefix('torch.')}, and {where} has {free / 2**30:.1f} GiB free. "
        f"Shut down other notebooks and programs that hold memory, {', or '.join(ways)}. {OTHERS}"
    )
