"""The code of the cheat sheet runs: each block after the first one, as a reader pastes it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[1] / "docs/cheat-sheet.md"
FIRST, *OTHERS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)


@pytest.mark.parametrize("block", OTHERS, ids=["heads", "features", "by hand", "layer"])
def test_each_block_runs_after_the_first(block, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # one block writes files
    monkeypatch.setenv("TUTORIAL_MODEL", "pocket-llama")
    names = {}
    exec(FIRST, names)
    exec(block, names)
    if "block" in names:  # the layer by hand gives what the model's own layer gives
        assert (names["x"] - names["activations"][3]).abs().max() < 1e-4
