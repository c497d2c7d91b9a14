"""Write the activations of many prompts to disk.

The folder gets `index.json` and shards. Shard k holds what `shard` prompts gave, from prompt
k * shard on, whichever process computes it. So any number of processes and restarts write the same
files. A shard is there as a whole or not at all: after a crash, the same command continues
where it stopped.

Three things run at once: one thread tokenizes the prompts of the next shard, the model runs, and
one thread writes the previous shard.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import accumulate, count
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tutorial_utils.activations.inputs import input_device
from tutorial_utils.activations.layers import find_decoder_layers, layer_numbers
from tutorial_utils.activations.record_and_edit import read_activations
from tutorial_utils.decoding import why_not_finite
from tutorial_utils.encoding import checked_ids, pad_rows
from tutorial_utils.harvest.batches import batches_of
from tutorial_utils.harvest.files import (
    check_prompts,
    close_folder,
    open_folder,
    shard_path,
    write,
)
from tutorial_utils.harvest.prompts import Prompts, Window
from tutorial_utils.models.revision import model_revision

POSITIONS = ("last", "all")


def harvest_activations(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: str | Path | Iterable,
    out: str | Path,
    *,
    layers: int | slice | Sequence[int] | None = None,
    positions: str = "last",
    shard: int = 512,
    batch_tokens: int = 4096,
    process: int = 0,
    processes: int = 1,
    take_over: bool = False,
    progress: bool = False,
) -> int:
    """Write the residual stream of each of `prompts` to the folder `out`.

    Args:
        prompts: a text file with a prompt on each line; a file of JSON lines (`.jsonl`), each a
            string or an object with a "text"; or strings or dicts with a "text", as a list or a
            stream. A "label" and an "id" are stored too. Empty texts are left out.
        layers: as in `record_activations`; None means all, 0 to n.
        positions: "last" keeps the last token of each prompt, "all" keeps every token.
        shard: the number of prompts in one file. At most two files' content is kept in memory.
        batch_tokens: the most tokens that one forward pass may have, including padding.
        process, processes: this process writes every `processes`-th shard, from `process` on.
        take_over: afterwards it also writes missing shards of the others, from the last one back.
            If two processes make the same shard, both write the same file.

    A shard that is already there stays as it is. Returns the number of shards written. Read them
    back with `read_harvest`. By hand: the lesson on many prompts.

    Raises ValueError if the folder is of another model, other settings or other prompts, or has a
    shard that was cut short; and for a prompt that the model cannot read, or whose activations are
    not all finite; the message says which. Raises OSError if a shard cannot be written; what was
    written is kept.
    """
    out = Path(out)
    if positions not in POSITIONS:
        raise ValueError(f"positions are 'last' or 'all', not {positions!r}")
    if min(shard, batch_tokens, processes) < 1 or not 0 <= process < processes:
        raise ValueError(
            f"shard, batch_tokens and processes are at least 1, and process counts from 0: got "
            f"shard={shard}, batch_tokens={batch_tokens}, process {process} of {processes}"
        )
    layers = layer_numbers(layers, len(find_decoder_layers(model)))
    given = Prompts(prompts, shard)
    about = {
        "model": model.config.name_or_path,
        "revision": model_revision(model),
        "dtype": str(model.dtype).removeprefix("torch."),
        "hidden": model.config.get_text_config(decoder=True).hidden_size,
        "layers": layers,
        "positions": positions,
        "lines": given.count,
        "shard": shard,
        "shards": given.shards,
    }
    if given.comes_once and take_over:
        raise ValueError("take_over needs prompts in a file or a list: a stream is read only once")
    numbers: Iterable[int] = count(process, processes)  # the end of a stream is not known yet
    if given.shards is not None:
        numbers = range(process, given.shards, processes)
        if take_over:
            others = set(range(given.shards)).difference(numbers)
            numbers = [*numbers, *sorted(others, reverse=True)]
    open_folder(out, about)
    seconds = {"text": 0.0, "model": 0.0, "disk": 0.0}
    work = Work(model, tokenizer, out, about, batch_tokens, seconds)
    written = _run(work, given, numbers, progress)
    if not given.count:
        raise ValueError("there are no prompts: the stream ended before it gave one")
    close_folder(out, {**about, "lines": given.count, "shards": given.shards})
    return written


class Work(NamedTuple):
    """A harvest."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    out: Path
    about: dict  # as in index.json
    batch_tokens: int
    seconds: dict[str, float]  # how long each of the three has been at work

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Count the block as time at work."""
        started = perf_counter()
        yield
        self.seconds[what] += perf_counter() - started


class Shard(NamedTuple):
    """What is known of a shard before it is computed."""

    path: Path
    window: Window
    ids: list[list[int]]  # the tokens of each text
    kept: list[int]  # how many of them are kept
    batches: list[list[int]]  # which texts go through the model together


def _run(work: Work, given: Prompts, numbers: Iterable[int], progress: bool) -> int:
    """Make those of these shards that are not there; how many were made."""
    sizes = given.sizes(numbers)
    done = sum(size for number, size in sizes.items() if shard_path(work.out, number).exists())
    bar = tqdm(total=sum(sizes.values()) or None, initial=done, unit="prompt", disable=not progress)
    written, saving, started = 0, None, perf_counter()
    with bar, ThreadPoolExecutor(1) as writer:
        for shard in _ahead(_prepare(work, given, numbers)):
            with work.timed("model"):
                vectors = _read(work, shard, bar.update)
            if saving is not None:
                saving.result()
            saving = writer.submit(_save, work, shard, vectors)
            written += 1
        if saving is not None:
            saving.result()
            bar.set_postfix_str(_pace(work.seconds, perf_counter() - started))
    return written


def _ahead(items: Iterator[Shard]) -> Iterator[Shard]:
    """The items, each made in another thread while the one before is used."""
    with ThreadPoolExecutor(1) as maker:
        coming = maker.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = maker.submit(next, items, None)
            yield item


def _prepare(work: Work, given: Prompts, numbers: Iterable[int]) -> Iterator[Shard]:
    """The shards that are not there, with the tokens of their texts."""
    device = input_device(work.model)
    for number, window in given.windows(numbers):
        path = shard_path(work.out, number)
        if path.exists():
            check_prompts(path, window.digest)
            continue
        with work.timed("text"):
            ids = checked_ids(work.model, work.tokenizer, window.texts, window.names)
            lengths = [len(row) for row in ids]
            kept = lengths if work.about["positions"] == "all" else [1] * len(ids)
            batches = batches_of(lengths, work.batch_tokens, device)
        yield Shard(path, window, ids, kept, batches)


def _read(work: Work, shard: Shard, step: Callable[[int], object]) -> dict[int, Tensor]:
    """The vectors of a shard, {layer: (rows, hidden)}. Prompts of like length share a pass."""
    model, about = work.model, work.about
    starts = [0, *accumulate(shard.kept)]
    size = starts[-1], about["hidden"]
    vectors = {number: torch.empty(size, dtype=model.dtype) for number in about["layers"]}
    where: dict[str, Any] = {"layers": about["layers"], "to": "cpu", "dtype": model.dtype}
    where["positions"] = None if about["positions"] == "all" else "last"

    def place(batch: list[int], found: Mapping[int, Tensor]) -> None:
        for number, vector in vectors.items():
            hidden = found[number]  # waits for the copy from a GPU
            for row, i in enumerate(batch):
                vector[starts[i] : starts[i + 1]] = hidden[row, : shard.kept[i]]
        step(len(batch))

    before = None
    for batch in shard.batches:
        # On the right, where no real token sees the padding, whatever the model does with a mask.
        inputs = pad_rows([shard.ids[i] for i in batch], left=False, device=input_device(model))
        found = read_activations(model, **{**inputs, **where})
        if before is not None:  # while a GPU computes and copies what comes next
            place(*before)
        before = batch, found
    if before is not None:
        place(*before)
    step(shard.window.size - len(shard.ids))  # those without a text
    return vectors


def _save(work: Work, shard: Shard, vectors: dict[int, Tensor]) -> None:
    """Write a shard, unless it holds numbers that are not finite."""
    window, kept = shard.window, shard.kept
    dtype = work.about["dtype"]
    for number, vector in vectors.items():
        if not vector.isfinite().all():
            row = int((~vector.isfinite().all(dim=1)).int().argmax())
            raise ValueError(
                f"{window.names[bisect_right([*accumulate(kept)], row)]}: layer {number} is not "
                f"finite in {dtype}. {why_not_finite(dtype)}. Or leave the prompt out"
            )
    places = [place for row, n in zip(shard.ids, kept) for place in range(len(row) - n, len(row))]
    tokens = [token for row, n in zip(shard.ids, kept) for token in row[-n:]]
    numbers = [number for number, n in zip(window.numbers, kept) for _ in range(n)]
    index = {"prompt": numbers, "position": places, "token": tokens}
    columns = {
        **{f"layer_{number}": vector for number, vector in vectors.items()},
        **{name: torch.tensor(values, dtype=torch.long) for name, values in index.items()},
    }
    about = {"prompts": window.digest}
    if window.labels:
        about["labels"] = json.dumps(window.labels)
    with work.timed("disk"):
        try:
            write(shard.path, lambda file: save_file(columns, file, about))
        except OSError:
            # Who takes over may come first, and sweep this file's beginning away as a leftover.
            if not shard.path.exists():
                raise


def _pace(seconds: dict[str, float], whole: float) -> str:
    """Which of the three that go on at once had the least rest."""
    shares = ", ".join(f"{what} {time / whole:.0%}" for what, time in seconds.items())
    return f"at work: {shares}; the {max(seconds, key=seconds.__getitem__)} sets the pace"
