"""The files of a harvest: the index, the shards, and one array over all of them."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor


def read_harvest(folder: str | Path) -> dict[int | str, Any]:
    """What a harvest wrote: arrays over all shards, read from disk when they are indexed.

    `harvest[4]` holds the vectors of layer 4, (rows, hidden). `harvest["prompt"]`, `["position"]`
    and `["token"]`, (rows,), give for each row the number of its prompt, from 0, the position of
    its token in the prompt, and the token's id. If prompts had a label or an id, `harvest["label"]`
    and `["id"]` give it for each row, as a list. Rows are in the order of the prompts.
    By hand: the lesson on many prompts.

    Raises OSError if there is no harvest, ValueError if a shard is missing or cut short.
    """
    folder = Path(folder)
    if not (folder / "index.json").is_file():
        raise OSError(
            f"there is no harvest in '{folder}': it has no index.json. "
            "`python -m tutorial_utils.harvest --help` says how to make one."
        )
    about = read_index(folder)
    if about["shards"] is None:
        raise ValueError(
            f"the harvest in '{folder}' is not complete: it has not reached the end of its "
            "prompts. Run the same command again to continue where it stopped."
        )
    missing = missing_shards(folder, about["shards"])
    if missing:
        raise ValueError(
            f"the harvest in '{folder}' is not complete: shards are missing ({len(missing)} "
            f"of {about['shards']}). Run the same command again to continue where it stopped."
        )
    files = [shard_path(folder, number) for number in range(about["shards"])]
    names = (*about["layers"], "prompt", "position", "token")
    found: dict[int | str, Any] = {name: Column(files, name) for name in names}
    labels = [read_labels(file) for file in files]
    for key in dict.fromkeys(key for of_shard in labels for key in of_shard):
        found[key] = Labels(found["prompt"], labels, key)
    return found


class Labels:
    """What came with the prompts, for each row: `labels[5]` is one, `labels[10:20]` a list."""

    def __init__(self, prompts: Column, shards: list[dict[str, dict]], key: str) -> None:
        self._prompts, self._key = prompts, key
        self._of = {int(n): value for shard in shards for n, value in shard.get(key, {}).items()}

    def __len__(self) -> int:
        return len(self._prompts)

    def __repr__(self) -> str:
        rows = "1 row" if len(self) == 1 else f"{len(self)} rows"
        return f"Labels({self._key}, {rows})"

    def __getitem__(self, rows: int | slice | Sequence[int] | Tensor) -> Any:
        prompts = self._prompts[rows]
        found = [self._of.get(number) for number in prompts.flatten().tolist()]
        return found if prompts.dim() else found[0]


class Column:
    """One array over all shards. `column[5]`, `column[10:20]` and `column[[7, 3]]` give tensors.

    Only the rows that are asked for are copied; the files are memory-mapped while they are read.
    `name` is the layer's number, or the column's name, such as "token". `folder` is that of the
    harvest.
    """

    def __init__(self, files: list[Path], name: int | str) -> None:
        self._files, self.name, self.folder = files, name, files[0].parent
        self._key = f"layer_{name}" if isinstance(name, int) else name
        counts = []
        for file in files:
            with open_shard(file) as shard:
                part = shard.get_slice(self._key)
                counts.append(part.get_shape()[0])
                self._empty = part[:0]
        self._ends = torch.tensor(counts).cumsum(0)
        self.shape = (int(self._ends[-1]), *self._empty.shape[1:])
        self.dtype = self._empty.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        shards = "1 shard" if len(self._files) == 1 else f"{len(self._files)} shards"
        return f"Column({self._key}, shape {self.shape}, {self.dtype}, {shards})"

    def __getitem__(self, rows: int | slice | Sequence[int] | Tensor) -> Tensor:
        if isinstance(rows, slice):
            return self._rows(torch.arange(*rows.indices(len(self))))
        known = rows is not None and rows is not ... and not isinstance(rows, tuple)
        chosen = torch.as_tensor(rows if known else [0.5])
        if chosen.dim() > 1 or (chosen.is_floating_point() and chosen.numel()):
            raise TypeError(
                f"rows are a number, a slice, a list of numbers or a mask, not {rows!s:.80}: "
                "column[[3, 5]] are two rows, and column[3][5] is one number of one row"
            )
        if chosen.dtype == torch.bool:
            if chosen.shape != (len(self),):
                raise IndexError(f"a mask over rows has shape ({len(self)},), not {chosen.shape}")
            chosen = chosen.nonzero()[:, 0]
        wrong = chosen[(chosen < -len(self)) | (chosen >= len(self))]
        if wrong.numel():
            raise IndexError(f"row {int(wrong[0])} is not there: rows are 0 to {len(self) - 1}")
        chosen = torch.where(chosen < 0, chosen + len(self), chosen).long()
        return self._rows(chosen) if chosen.dim() else self._rows(chosen[None])[0]

    def _rows(self, rows: Tensor) -> Tensor:
        """The rows of these numbers, none of which is negative, in this order."""
        result = self._empty.new_empty(len(rows), *self.shape[1:])
        where = torch.bucketize(rows, self._ends, right=True)
        for number in where.unique().tolist():
            here = where == number
            inside = rows[here] - (self._ends[number - 1] if number else 0)
            low, high = int(inside.min()), int(inside.max())
            with open_shard(self._files[number]) as shard:
                result[here] = shard.get_slice(self._key)[low : high + 1][inside - low]
        return result


def open_folder(out: Path, about: dict) -> None:
    """Make the folder with its index, or check that its index is of the same work."""
    out.mkdir(parents=True, exist_ok=True)
    index = out / "index.json"
    if not index.exists():
        _write_index(out, about)
    there = read_index(out)
    # The same weights may lie in another folder today: the revision tells them, not the name. How
    # many prompts a stream has is known at its end.
    known = [key for key in about if key != "model" and None not in (there.get(key, 0), about[key])]
    other = [key for key in known if there.get(key) != about[key]]
    if other:
        told = [f"{key} {there.get(key)} in the folder, {about[key]} in this call" for key in other]
        raise ValueError(
            f"'{out}' holds a harvest of '{there.get('model')}' that differs from this one: "
            f"{'; '.join(told)}. Choose another folder, or delete this one."
        )


def close_folder(out: Path, about: dict) -> None:
    """Write into the index how many prompts there are, and take away what killed runs left."""
    if read_index(out)["shards"] is None:
        _write_index(out, {**read_index(out), "lines": about["lines"], "shards": about["shards"]})
    if not missing_shards(out, about["shards"]):
        # By a run that was killed while it wrote: this module's files, and safetensors' own.
        for left in (*out.glob("*.tmp"), *out.glob(".tmp*")):
            left.unlink(missing_ok=True)


def _write_index(out: Path, about: dict) -> None:
    text = json.dumps(about, indent=1)
    write(out / "index.json", lambda file: file.write_text(text, encoding="utf-8"))


def read_index(folder: Path) -> dict:
    """What index.json says; ValueError where it is cut short or of something else."""
    try:
        about = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        shards = about["shards"]
        shards = shards if shards is None else int(shards)
        return {**about, "shards": shards, "layers": list(about["layers"])}
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"'{folder / 'index.json'}' is not the index of a harvest ({error!r}): it was cut "
            "short, or it is some other file. Delete it and run the same command again. The shards "
            "stay"
        ) from None


@contextmanager
def open_shard(path: Path) -> Iterator[Any]:
    """A shard to read from; ValueError where the file is cut short or is something else."""
    try:
        with safe_open(path, "pt") as shard:
            yield shard
    except SafetensorError as error:
        raise ValueError(
            f"'{path}' is not a whole shard ({error}): it was cut short, or it is some other file. "
            "Delete it and run the same command again, which makes only this shard anew"
        ) from None


def read_labels(path: Path) -> dict[str, dict[str, Any]]:
    """What came with the prompts of a shard, {"label": {number of the prompt: its label}}."""
    with open_shard(path) as shard:
        return json.loads((shard.metadata() or {}).get("labels", "{}"))


def check_prompts(path: Path, digest: str) -> None:
    """ValueError if a shard was made from other prompts than those with this SHA-256."""
    with open_shard(path) as shard:
        same = (shard.metadata() or {}).get("prompts") == digest
    if not same:
        raise ValueError(
            f"'{path}' was made from other prompts than those of this call. Choose another "
            "folder, or delete this one."
        )


def write(path: Path, save: Callable[[Path], object]) -> None:
    """Write a file that is there as a whole or not at all, whenever the process is killed."""
    temporary = path.with_name(f"{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")
    try:
        save(temporary)
        with open(temporary, "r+b") as file:
            os.fsync(file.fileno())  # or a power cut could leave the new name and not what it holds
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise OSError(
            f"'{path}' could not be written: {error}. What was written before is kept. Make room "
            "or allow writing there, then run the same command again to continue from there"
        ) from error


def shard_path(folder: Path, number: int) -> Path:
    """The file of shard `number`, from 0."""
    return folder / f"shard-{number:06}.safetensors"


def missing_shards(folder: Path, shards: int) -> list[int]:
    """Numbers of those of `shards` files that are not there."""
    there = {path.name for path in folder.glob("shard-*.safetensors")}
    return [number for number in range(shards) if shard_path(folder, number).name not in there]
