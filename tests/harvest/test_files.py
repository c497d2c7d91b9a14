"""A harvest is read back lazily, as one array over all its files."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

import fake_hub
from tutorial_utils import read_harvest
from tutorial_utils.harvest.files import Column


@pytest.fixture
def column(tmp_path) -> Column:
    """Rows 0 to 9 in three shards, the second of which is empty."""
    rows = torch.arange(10.0)[:, None] * torch.ones(3)
    paths = [tmp_path / f"{i}.safetensors" for i in range(3)]
    for path, part in zip(paths, (rows[:4], rows[:0], rows[4:])):
        save_file({"layer_1": part.contiguous()}, path)
    return Column(paths, 1)


@pytest.mark.parametrize(
    "rows",
    [
        slice(None),
        slice(3, 5),
        slice(None, None, -3),
        slice(4, 4),
        2,
        -1,
        [9, 0, 4, 4, -1],
        torch.arange(10) % 2 == 0,
        [],
    ],
)
def test_a_column_is_indexed_as_a_tensor_is(rows, column):
    want = torch.arange(10.0)[:, None] * torch.ones(3)
    if isinstance(rows, slice):
        want = want.numpy()[rows].copy()
    else:
        want = want[torch.tensor(rows, dtype=torch.long) if rows == [] else rows]
    assert torch.equal(column[rows], torch.as_tensor(want))
    assert column.shape == (10, 3) and len(column) == 10


def test_a_column_says_how_many_shards_it_has(column):
    assert repr(column).endswith("3 shards)")
    assert repr(Column(column._files[:1], 1)).endswith("1 shard)")


@pytest.mark.parametrize("rows", [10, [-11], torch.ones(9, dtype=torch.bool)])
def test_rows_that_are_not_there(rows, column):
    with pytest.raises(IndexError):
        column[rows]


@pytest.mark.parametrize("rows", [(3, 5), (slice(2), 1), [0.5], 1.0, [[1, 2]], None, ...])
def test_what_are_no_rows(rows, column):
    """Two numbers would be two rows here, and a row and a column in torch."""
    with pytest.raises(TypeError, match="rows are a number, a slice, a list of numbers or a mask"):
        column[rows]


def test_only_the_rows_that_are_asked_for_are_read(tmp_path):
    path = tmp_path / "shard-000000.safetensors"
    save_file({"layer_0": torch.ones(2**15, 512)}, path)  # 64 MiB
    code = (
        "import resource, sys; from pathlib import Path; import torch\n"
        "from tutorial_utils.harvest.files import Column\n"
        "column = Column([Path(sys.argv[1])], 0)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert column[[5, 30_000]].sum() == 1024\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    environment = {**os.environ, "PYTHONPATH": fake_hub.python_path()}
    command = [sys.executable, "-c", code, str(path)]
    grown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(grown.stdout) * unit < 32 * 2**20
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss > 0
    assert load_file(path)["layer_0"].shape == (2**15, 512)


def test_where_there_is_no_harvest(tmp_path):
    with pytest.raises(OSError, match="there is no harvest"):
        read_harvest(tmp_path)
