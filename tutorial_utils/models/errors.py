"""Explain why a model can't be loaded: what was wrong, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from huggingface_hub import constants, errors

from tutorial_utils.models.integrity import find_fault

OTHERS = (
    'Models that need no account: load_model("Qwen/Qwen3-0.6B"), or load_model("pocket-llama"), '
    "the small one that comes with the series and needs no network."
)
NETWORK_LIBRARIES = {"httpx", "httpx2", "requests", "urllib3", "socket"}


@contextmanager
def plain_errors(source: str | Path, label: str, no_room: str = "") -> Iterator[None]:
    """Turn what transformers and huggingface_hub raise inside the block into plain words.

    `source` is a folder (Path) or a name on the hub (str), `label` is what messages call it, and
    `no_room` is the message to give if memory runs out.
    """
    try:
        yield
    except Exception as error:
        raise _explain(error, source, label, no_room) from error


def _explain(error: Exception, source: str | Path, label: str, no_room: str) -> Exception:
    """The exception to raise in place of `error`.

    transformers wraps the hub's errors, so the errors that caused this one are looked at too.
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
            f"{label} is gated: its owner gives access on request only. Ask for access at "
            f"https://huggingface.co/{source}, then log in from a terminal with `hf auth login`, "
            f"and run this again. {OTHERS}"
        )
    if because_of(errors.RepositoryNotFoundError, errors.HFValidationError):
        return OSError(
            f"{label} is neither an existing folder nor a name that huggingface.co knows. A "
            "name looks like 'Qwen/Qwen3-0.6B'. For a private model, log in from a terminal with "
            f"`hf auth login`. {OTHERS}"
        )
    answers = [r for r in reasons if isinstance(r, errors.HfHubHTTPError)]
    if answers and not because_of(errors.LocalEntryNotFoundError):
        return OSError(
            f"{label} could not be fetched: {' '.join(str(answers[-1]).split())[:300]}. If that is "
            "about your access token, log in again from a terminal with `hf auth login`; if not, "
            f"try again later. {OTHERS}"
        )
    if because_of(errors.LocalEntryNotFoundError, ConnectionError) or any(
        type(reason).__module__.split(".")[0] in NETWORK_LIBRARIES for reason in reasons
    ):
        return not_in_cache(label)
    if fault := find_fault(source):
        return OSError(f"{label} could not be loaded: {fault} {OTHERS}")
    return OSError(f"{label} could not be loaded: {type(error).__name__}: {words[:300]}")


def not_in_cache(label: str) -> OSError:
    """The error for a model that would have to be downloaded when there is no network."""
    why = " (HF_HUB_OFFLINE is set)" if constants.HF_HUB_OFFLINE else ""
    return OSError(
        f"{label} is missing or incomplete in the cache of this machine "
        f"({constants.HF_HUB_CACHE}), and huggingface.co can't be reached{why}. Run this "
        f"once with a network: the download is kept. {OTHERS}"
    )


def remote_code(label: str) -> ValueError:
    """The error for a model outside of transformers that brings its own Python files."""
    return ValueError(
        f"{label} needs Python code from its own repository. This series does not run such code "
        "(trust_remote_code=False), because it can do anything on your machine. "
        f"Take a model that transformers itself knows. {OTHERS}"
    )
