"""Folders of models as people have them: copies of a whole one with something missing or wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tutorial_utils.models.load import load_model


def copy_of(folder: Path, target: Path, *, without: str = "", **config: object) -> Path:
    """A copy of a model's folder, without some of its files and with another configuration."""
    shutil.copytree(folder, target)
    for file in target.glob(without) if without else ():
        file.unlink()
    if config:
        settings = json.loads((target / "config.json").read_text())
        (target / "config.json").write_text(json.dumps({**settings, **config}))
    return target


def refusal(error: type[Exception], name: object, **options: object) -> str:
    with pytest.raises(error) as caught:
        load_model(name, **options)
    assert type(caught.value) is error  # not one of its kinds from a library
    return str(caught.value)


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 268435456\n"
WEB_PAGE = "<!DOCTYPE html><html><title>403</title></html>" * 20
# What may be in a file's place, and what has to be said of it.
IN_PLACE_OF_A_FILE = [
    (POINTER.encode(), "is a Git LFS pointer", "git lfs pull"),
    (b"", "is empty", "hf download"),
    (bytes(4096), "is empty", "hf download"),
    (WEB_PAGE.encode(), "is a web page", "hf download"),
    (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "is a web page", ""),
    (b"PK\3\4 an archive", "is not", "hf download"),
    (b'\x40\0\0\0\0\0\0\0{"w": {"dtype"', "is not", "cut short"),
    ('{"model_type": "llama", "'.encode("utf-16"), "is not", "hf download"),
    (b"[]", "is not", "hf download"),
]


def shorten(file: Path, share: float) -> None:
    """Cut a file short, as a download that broke off does."""
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
