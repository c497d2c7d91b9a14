"""Write the activations of many prompts to disk.

The file of prompts holds one on each line; empty lines are left out. The folder gets `index.json`
and shards. Shard k holds what `shard` lines gave, from line k * shard on, whoever computes it, so
that any number of processes and any number of starts write the same files. A shard is there as a
whole or not at all: after a kill the same command goes on where it stopped.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, islice
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tutorial_utils.activations.inputs import input_device
from tutorial_utils.activations.layers import find_decoder_layers, layer_numbers
from tutorial_utils.activations.record_and_edit import read_activations
from tutorial_utils.encoding import checked_ids, pad_rows
from tutorial_utils.harvest.files import (
    check_prompts,
    missing_shards,
    open_folder,
    shard_path,
    write,
)
from tutorial_utils.models.revision import model_revision

POSITIONS = ("last", "all")


def harvest_activations(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: str | Path,
    out: str | Path,
    *,
    layers: int | slice | Sequence[int] | None = None,
    positions: str = "last",
    shard: int = 512,
    batch_tokens: int = 4096,
    process: int = 0,
    processes: int = 1,
    progress: bool = False,
) -> int:
    """Write the residual stream of each line of the file `prompts` to the folder `out`.

    Args:
        layers: as in `record_activations`; None means all, 0 to n.
        positions: "last" keeps the last token of each prompt, "all" keeps every token.
        shard: the lines that make one file; what it holds is all that is kept in memory.
        batch_tokens: the tokens that one forward pass may have, padding counted.
        process, processes: this one takes every `processes`-th shard, from number `process` on.

    A shard that is there already is left as it is. Gives the number of shards written. Read them
    back with `read_harvest`. By hand: the lesson on many prompts.

    Raises ValueError where the folder holds another model, other settings, other prompts or a shard
    cut short, and for a line that the model cannot read or gives no finite numbers for, by its
    number; OSError where a shard cannot be written. What was written before is kept.
    """
    prompts, out = Path(prompts), Path(out)
    if positions not in POSITIONS:
        raise ValueError(f"positions are 'last' or 'all', not {positions!r}")
    if min(shard, batch_tokens, processes) < 1 or not 0 <= process < processes:
        raise ValueError(
            f"shard, batch_tokens and processes are at least 1, and process counts from 0: got "
            f"shard={shard}, batch_tokens={batch_tokens}, process {process} of {processes}"
        )
    layers = layer_numbers(layers, len(find_decoder_layers(model)))
    count = count_lines(prompts)
    about = {
        "model": model.config.name_or_path,
        "revision": model_revision(model),
        "dtype": str(model.dtype).removeprefix("torch."),
        "hidden": model.config.get_text_config(decoder=True).hidden_size,
        "layers": layers,
        "positions": positions,
        "lines": count,
        "shard": shard,
        "shards": -(-count // shard),
    }
    open_folder(out, about)
    written = 0
    mine = {k: min(shard, count - k * shard) for k in range(process, about["shards"], processes)}
    done = sum(size for k, size in mine.items() if shard_path(out, k).exists())
    bar = tqdm(total=sum(mine.values()), initial=done, unit="prompt", disable=not progress)
    with bar, open(prompts, "rb") as lines:
        windows = iter(lambda: list(islice(lines, shard)), [])  # until there is no line left
        for number, window in enumerate(windows):
            if number not in mine:
                continue
            path, digest = shard_path(out, number), hashlib.sha256(b"".join(window)).hexdigest()
            if path.exists():
                check_prompts(path, digest)
                continue
            texts = _texts(window, number * shard, prompts)
            columns = _read(model, tokenizer, texts, prompts, about, batch_tokens, bar.update)
            write(path, lambda file: save_file(columns, file, {"prompts": digest}))  # noqa: B023
            bar.update(len(window) - len(texts))  # the empty lines
            written += 1
    if not missing_shards(out, about["shards"]):
        # By a run that was killed while it wrote: this module's files, and safetensors' own.
        for left in (*out.glob("*.tmp"), *out.glob(".tmp*")):
            left.unlink(missing_ok=True)
    return written


def count_lines(prompts: Path) -> int:
    """Lines of the file, with and without text; ValueError where none has text."""
    if prompts.exists() and not prompts.is_file():
        todo = "it is read twice, so write it to disk first"
        raise ValueError(f"'{prompts}' is no plain file: {todo}")
    total = full = 0
    with open(prompts, "rb") as lines:
        for line in lines:
            total, full = total + 1, full + bool(line.strip())
    if not full:
        raise ValueError(f"'{prompts}' holds no prompt: write one on each line")
    return total


def _texts(window: list[bytes], first: int, prompts: Path) -> dict[int, str]:
    """{number of the line, from 0: text} of the lines that are not empty."""
    texts = {}
    for number, line in enumerate(window, start=first):
        try:
            text = line.decode("utf-8-sig").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise ValueError(f"line {number + 1} of '{prompts}' is not UTF-8: {error}") from None
        if "\0" in text:
            raise ValueError(
                f"line {number + 1} of '{prompts}' holds zero bytes, as UTF-16 text does: save the "
                "file as UTF-8"
            )
        if text.strip():
            texts[number] = text
    return texts


def _read(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: dict[int, str],
    prompts: Path,
    about: dict,
    batch_tokens: int,
    step: Callable[[int], object],
) -> dict[str, Tensor]:
    """The columns of one shard. Prompts of like length go through the model together."""
    names = [f"line {number + 1} of '{prompts}'" for number in texts]
    ids = checked_ids(model, tokenizer, list(texts.values()), names)
    lengths = [len(row) for row in ids]
    every, layers = about["positions"] == "all", about["layers"]
    kept = lengths if every else [1] * len(ids)
    starts = [0, *accumulate(kept)]
    vectors = {n: torch.empty(starts[-1], about["hidden"], dtype=model.dtype) for n in layers}
    where = {"layers": layers, "positions": None if every else "last"}
    for batch in _batches(lengths, batch_tokens):
        # On the right, where no real token sees the padding, whatever the model does with a mask.
        inputs = pad_rows([ids[i] for i in batch], left=False, device=input_device(model))
        found = read_activations(model, **inputs, **where, to="cpu", dtype=model.dtype)
        for number, vector in vectors.items():
            for row, i in enumerate(batch):
                vector[starts[i] : starts[i + 1]] = found[number][row, : kept[i]]
        step(len(batch))
    for number, vector in vectors.items():
        if not vector.isfinite().all():
            row = int((~vector.isfinite().all(dim=1)).int().argmax())
            raise ValueError(
                f"{names[bisect_right(starts, row) - 1]}: layer {number} is not finite in "
                f"{about['dtype']}. float16 ends at 65504, and many models go beyond it: load this "
                "one in bfloat16 or float32, or leave the line out"
            )
    places = [place for n in lengths for place in (range(n) if every else [n - 1])]
    tokens = [token for row in ids for token in (row if every else row[-1:])]
    lines = [number for number, count in zip(texts, kept) for _ in range(count)]
    index = {"prompt": lines, "position": places, "token": tokens}
    return {
        **{f"layer_{number}": vector for number, vector in vectors.items()},
        **{name: torch.tensor(values, dtype=torch.long) for name, values in index.items()},
    }


def _batches(lengths: list[int], tokens: int) -> Iterator[list[int]]:
    """Numbers of rows, shortest first, in batches of at most `tokens`, padding counted."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[i] > tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
