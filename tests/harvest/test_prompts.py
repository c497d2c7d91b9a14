"""Prompts from files, lists and streams give the same harvest, their labels beside the rows."""

from __future__ import annotations

import json

import pytest
import torch

from tutorial_utils import harvest_activations, read_harvest

TEXTS = ["Anna went to Oslo.", "", "The dog", "A very old house\nnear the river.", "Ben", "Oslo is"]
ROWS = [{"text": text, "label": i % 2, "id": f"n{i}"} for i, text in enumerate(TEXTS)]


class Stream:
    """Comes as `datasets` streams do: it can be gone through, and has no length."""

    def __init__(self, rows: list):
        self.rows = rows

    def __iter__(self):
        return iter(self.rows)


def json_lines(rows: list, path):
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


@pytest.fixture
def options():
    return {"layers": 2, "shard": 4, "positions": "all"}


def test_all_forms_give_the_same(llama, tmp_path, options):
    forms = {
        "strings": TEXTS,
        "dicts": ROWS,
        "stream": Stream(ROWS),
        "once": (row for row in TEXTS),
        "json": json_lines(ROWS, tmp_path / "rows.jsonl"),
        "json strings": json_lines(TEXTS, tmp_path / "texts.jsonl"),
    }
    found = {}
    for name, prompts in forms.items():
        assert harvest_activations(*llama, prompts, tmp_path / name, **options) == 2
        found[name] = read_harvest(tmp_path / name)
        about = json.loads((tmp_path / name / "index.json").read_text())
        assert about["lines"] == 6 and about["shards"] == 2
    for name, harvest in found.items():
        for column in (2, "prompt", "position", "token"):
            assert torch.equal(harvest[column][:], found["strings"][column][:]), name
        assert ("label" in harvest) == (name in ("dicts", "stream", "json"))
    assert found["strings"]["prompt"][:].unique().tolist() == [0, 2, 3, 4, 5]


def test_labels_are_those_of_the_rows(llama, tmp_path, options):
    harvest_activations(*llama, ROWS, tmp_path, **options)
    harvest = read_harvest(tmp_path)
    prompts = harvest["prompt"][:].tolist()
    assert harvest["label"][:] == [n % 2 for n in prompts]
    assert harvest["id"][:] == [f"n{n}" for n in prompts]
    assert harvest["id"][-1] == "n5" and harvest["id"][[0, -1]] == ["n0", "n5"]
    assert len(harvest["label"]) == len(prompts)
    assert f"Labels(id, {len(prompts)} rows)" in repr(harvest["id"])


def test_a_prompt_without_a_label_has_none(llama, tmp_path):
    harvest_activations(*llama, ["Anna", {"text": "Ben", "label": "happy"}], tmp_path, layers=1)
    assert read_harvest(tmp_path)["label"][:] == [None, "happy"]


def test_a_stream_goes_on_where_it_stopped(llama, tmp_path, options):
    def breaks():
        yield from ROWS[:5]
        raise ConnectionError("the network is gone")

    with pytest.raises(ConnectionError):
        harvest_activations(*llama, breaks(), tmp_path, **options)
    with pytest.raises(ValueError, match="has not reached the end of its prompts"):
        read_harvest(tmp_path)
    before = (tmp_path / "shard-000000.safetensors").read_bytes()
    assert harvest_activations(*llama, Stream(ROWS), tmp_path, **options) == 1
    assert (tmp_path / "shard-000000.safetensors").read_bytes() == before
    assert read_harvest(tmp_path)["id"][-1] == "n5"
    assert harvest_activations(*llama, Stream(ROWS), tmp_path, **options) == 0
    other = [ROWS[0], ROWS[1] | {"label": 7}, *ROWS[2:]]
    with pytest.raises(ValueError, match="made from other prompts"):
        harvest_activations(*llama, Stream(other), tmp_path, **options)
    with pytest.raises(ValueError, match="lines 6 in the folder, 5 in this call"):
        harvest_activations(*llama, ROWS[:5], tmp_path, **options)


@pytest.mark.parametrize("count", [8, 9, 11])
def test_processes_share_a_stream(count, llama, tmp_path):
    rows = [f"Anna saw {number} dogs" for number in range(count)]
    written = [
        harvest_activations(
            *llama, Stream(rows), tmp_path, layers=1, shard=4, process=process, processes=2
        )
        for process in range(2)
    ]
    assert sum(written) == -(-count // 4)
    assert read_harvest(tmp_path)["prompt"][:].tolist() == list(range(count))


@pytest.mark.parametrize(
    ("prompts", "told"),
    [
        ([], "there are no prompts"),
        (Stream([]), "the stream ended before it gave one"),
        (7, "not int"),
        ({"text": "one"}, "not dict"),
        (["good", 7], "prompt 1 is not a string or a dict with a string 'text': 7"),
        ([{"content": "good"}], "prompt 0 is not a string.*a dict with content"),
        ([{"text": None}], "prompt 0 is not a string"),
        ([{"text": "good", "label": [1]}], "prompt 0: its label is list"),
        (["good", "long " * 300], "prompt 1 is too long"),
    ],
)
def test_what_are_no_prompts(prompts, told, llama, tmp_path):
    with pytest.raises(ValueError, match=told):
        harvest_activations(*llama, prompts, tmp_path / "out", layers=1)


def test_a_line_that_is_not_json(llama, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"text": "good"}\n\n{"text": \n')
    with pytest.raises(ValueError, match=r"line 3 of .*rows.jsonl' is not JSON"):
        harvest_activations(*llama, tmp_path / "rows.jsonl", tmp_path / "out", layers=1)
