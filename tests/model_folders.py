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
