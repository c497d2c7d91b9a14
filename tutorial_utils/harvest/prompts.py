"""The prompts of a harvest: the lines of a file, or an iterable of strings or dicts.

They are taken in windows, each with the prompts of one shard.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, cast

LABELS = ("label", "id")  # what is stored of a prompt besides its text
JSON_LINES = (".jsonl", ".ndjson")


class Window(NamedTuple):
    """The prompts of one shard that have a text."""

    numbers: list[int]  # from 0, over all prompts
    names: list[str]  # for messages
    texts: list[str]
    labels: dict[str, dict[int, Any]]  # such as {"label": {number: label}}
    size: int  # how many prompts, with text or without
    digest: str  # SHA-256 of all


class Prompts:
    """Prompts in windows of `size`. `count` is None until the end of a stream is reached."""

    def __init__(self, prompts: str | Path | Iterable, size: int) -> None:
        self.path = Path(prompts) if isinstance(prompts, (str, Path)) else None
        self.count: int | None = None
        self._given, self._size = prompts, size
        if self.path is not None:
            self.count, self._starts = count_lines(self.path, size)
        elif not isinstance(prompts, Iterable) or isinstance(prompts, (bytes, Mapping)):
            raise ValueError(
                "prompts are a file, or an iterable of strings or of dicts with a text, such "
                f"as a list, not {type(prompts).__name__}"
            )
        elif isinstance(prompts, Sized):
            self.count = len(prompts)
            if not self.count:
                raise ValueError("there are no prompts: give at least one")

    @property
    def shards(self) -> int | None:
        """How many windows there are."""
        return None if self.count is None else -(-self.count // self._size)

    @property
    def comes_once(self) -> bool:
        """Whether windows can be taken in ascending order only."""
        return self.path is None and not isinstance(self._given, Sequence)

    def sizes(self, numbers: Iterable[int]) -> dict[int, int]:
        """How many prompts these windows hold; empty where that is not known."""
        if self.count is None:
            return {}
        return {number: min(self._size, self.count - number * self._size) for number in numbers}

    def windows(self, numbers: Iterable[int]) -> Iterator[tuple[int, Window]]:
        """These windows, by their numbers; of a stream they come in ascending order only."""
        for number, items in self._items(numbers):
            yield number, self._window(items, number * self._size)

    def _items(self, numbers: Iterable[int]) -> Iterator[tuple[int, list]]:
        size, given = self._size, self._given
        if self.path is not None:
            with open(self.path, "rb") as lines:
                for number in numbers:
                    lines.seek(self._starts[number])
                    yield number, list(islice(lines, size))
        elif isinstance(given, Sequence):
            for number in numbers:
                places = range(number * size, min((number + 1) * size, len(given)))
                yield number, [given[place] for place in places]
        else:
            stream, seen = iter(cast("Iterable", given)), 0
            for number in numbers:
                seen += sum(1 for _ in islice(stream, number * size - seen))
                items = list(islice(stream, size))
                seen += len(items)
                if items:
                    yield number, items
                if seen < (number + 1) * size:
                    self.count = seen
                    return

    def _window(self, items: list, first: int) -> Window:
        numbers, names, texts, digest = [], [], [], hashlib.sha256()
        labels: dict[str, dict[int, Any]] = {}
        for number, item in enumerate(items, start=first):
            where = f"'{self.path}'" if self.path else "prompts"
            name = f"line {number + 1} of {where}" if self.path else f"prompt {number}"
            found = item if self.path is None else _from_line(item, name, self.path)
            text, label = _text(found, name)
            digest.update(json.dumps([text, label]).encode() if self.path is None else item)
            if text.strip():
                numbers.append(number)
                names.append(name)
                texts.append(text)
                for key, value in label.items():
                    labels.setdefault(key, {})[number] = value
        return Window(numbers, names, texts, labels, len(items), digest.hexdigest())


def _from_line(line: bytes, name: str, path: Path) -> object:
    """The text of a line; of a file of JSON lines, what it says."""
    try:
        text = line.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not UTF-8: {error}") from None
    if "\0" in text:
        raise ValueError(f"{name} holds zero bytes, as UTF-16 text does: save the file as UTF-8")
    if path.suffix not in JSON_LINES or not text.strip():
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"{name} is not JSON: {error}") from None


def _text(item: Any, name: str) -> tuple[str, dict[str, Any]]:
    """The text of a prompt, and its labels."""
    if isinstance(item, str):
        return item, {}
    if not isinstance(item, Mapping) or not isinstance(item.get("text"), str):
        given = f"a dict with {', '.join(map(str, item))}" if isinstance(item, Mapping) else item
        raise ValueError(f"{name} is not a string or a dict with a string 'text': {given!r:.80}")
    labels = {key: item[key] for key in LABELS if key in item}
    for key, value in labels.items():
        if not isinstance(value, (str, int, float, type(None))):
            raise ValueError(
                f"{name}: its {key} is {type(value).__name__}, but it must be a string, a number, "
                "true, false or null"
            )
    return item["text"], labels


def count_lines(path: Path, size: int = 1) -> tuple[int, list[int]]:
    """Lines of the file, with text or not, and where every `size`-th begins, in bytes.

    ValueError where none has text, and for anything that is not a plain file.
    """
    if path.is_dir():
        raise ValueError(f"'{path}' is a folder: give one file with a prompt on each line")
    if path.exists() and not path.is_file():
        todo = "it is read twice, so write it to disk first"
        raise ValueError(f"'{path}' is not a plain file: {todo}")
    total = place = 0
    starts, is_full = [], False
    with open(path, "rb") as lines:
        for line in lines:
            if total % size == 0:
                starts.append(place)
            total, place = total + 1, place + len(line)
            is_full = is_full or bool(line.strip())
    if not is_full:
        raise ValueError(f"'{path}' has no prompt in it: write one on each line")
    return total, starts
