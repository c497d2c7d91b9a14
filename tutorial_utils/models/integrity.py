"""Find files of a model that are missing, cut short, or not what their names say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import try_to_load_from_cache

INDEX = "model.safetensors.index.json"  # there if the weights are in several files
SETTINGS = (
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
)
WEB_PAGES = (b"<!doctype", b"<html", b"<head", b"<?xml")


def find_fault(source: str | Path) -> str:
    """What is wrong with a file of this model, and what to do about it; "" if nothing is.

    `source` is a folder (Path) or a name on the hub (str), whose files in the cache are looked at.
    """
    folder = snapshot(source)
    for file in _files_to_read(folder) if folder else ():
        if isinstance(source, str) and not file.exists():
            continue  # not downloaded yet
        if what := _fault_of(file):
            name = "OWNER/NAME" if isinstance(source, Path) else source
            into = f" --local-dir '{folder}'" if isinstance(source, Path) else ""
            todo = f"Download it again: `hf download {name} {file.name} --force-download{into}`."
            if "Git LFS" in what:
                todo = f"Run `git lfs install`, then `git lfs pull`, in '{folder}'."
            return f"{file.name} {what}. {todo}"
    return ""


def snapshot(source: str | Path) -> Path | None:
    """The folder of a model: itself, or in the cache. None if nothing has been downloaded yet."""
    if isinstance(source, Path):
        return source
    config = try_to_load_from_cache(source, "config.json")
    return Path(config).parent if isinstance(config, str) else None


def weight_files(folder: Path) -> set[str]:
    """The names of the files with weights, from the index if there is one."""
    if not (folder / INDEX).is_file():
        return {"model.safetensors"}
    return set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values())


def _files_to_read(folder: Path) -> Iterator[Path]:
    """The files that loading reads. Optional ones are left out if they are not there."""
    there = sorted(file.name for file in folder.iterdir())
    yield from (folder / name for name in SETTINGS if name in there)
    if "tokenizer.json" in there:
        yield folder / "tokenizer.json"
    else:
        kinds = ("vocab.json", "vocab.txt", "merges.txt", ".model", ".tiktoken")
        yield from (folder / name for name in there if name.endswith(kinds))
    if INDEX in there:
        yield folder / INDEX
    yield from (folder / name for name in sorted(weight_files(folder)))


def _fault_of(file: Path) -> str | None:
    """What is wrong with this file, as the rest of a sentence; None if nothing is."""
    try:
        with file.open("rb") as opened:
            start = opened.read(512).lstrip(b"\xef\xbb\xbf \t\r\n\0").lower()
        size = file.stat().st_size
        if start.startswith(b"version https://git-lfs"):
            return "is a Git LFS pointer, not the file itself"
        if not size or (not start and file.suffix != ".txt"):
            return "is empty"
        if start.startswith(WEB_PAGES):
            return "is a web page: a download without permission often saves one"
        if file.suffix == ".safetensors":
            whole = _size_by_header(file)
            return f"was cut short: {size:,} of {whole:,} bytes" if size < whole else None
        if file.suffix == ".json":
            content = json.loads(file.read_text(encoding="utf-8"))
            named = content["weight_map"].values() if file.name == INDEX else ()
            if not isinstance(content, dict) or not all(isinstance(n, str) for n in named):
                return "is not what transformers writes"
    except FileNotFoundError:
        return "is not there"
    except OSError as error:
        return f"can't be read ({error.strerror})"
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        form = "in safetensors format" if file.suffix == ".safetensors" else "JSON text in UTF-8"
        return f"is not {form}, or was cut short"
    return None


def _size_by_header(file: Path) -> int:
    """How many bytes a file in safetensors format must have, by its header."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if length > file.stat().st_size:
            raise ValueError("the header is longer than the file")
        tensors = json.loads(opened.read(length))
    tensors.pop("__metadata__", None)
    return 8 + length + max((tensor["data_offsets"][1] for tensor in tensors.values()), default=0)
