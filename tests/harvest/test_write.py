"""A harvest holds the same vectors as one prompt at a time, and never mixes two works."""

from __future__ import annotations

import copy
import json
import os
import re
import threading
from pathlib import Path

import accelerate
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from tokenizers import normalizers, processors

import architectures
from tiny_models import NumberTokenizer
from tutorial_utils import (
    encode,
    harvest_activations,
    load_model,
    read_activations,
    read_harvest,
)
from tutorial_utils.harvest import write as harvest
from tutorial_utils.harvest.prompts import Prompts
from tutorial_utils.models.revision import model_revision


def alone(model, tokenizer, text: str, layer: int) -> torch.Tensor:
    """(seq, hidden) of one prompt that nothing was padded for."""
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    return read_activations(model, ids, layers=layer)[layer][0]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# What is written


@pytest.mark.parametrize("name", ["llama", "gpt2"])
@pytest.mark.parametrize("positions", ["last", "all"])
def test_the_same_vectors_as_one_prompt_at_a_time(name, positions, folder, prompts, tmp_path):
    model, tokenizer = load_model(folder / name, device="cpu")
    options = {"layers": [0, 2, -1], "positions": positions, "shard": 10, "batch_tokens": 100}
    assert harvest_activations(model, tokenizer, prompts, tmp_path, **options) == 6
    found = read_harvest(tmp_path)
    assert list(found) == [0, 2, 4, "prompt", "position", "token"]
    lines = prompts.read_text(encoding="utf-8").split("\n")
    full = [number for number, line in enumerate(lines) if line.strip()]
    assert found["prompt"][:].unique().tolist() == full
    for number in full:
        rows = found["prompt"][:] == number
        ids = tokenizer(lines[number])["input_ids"]
        places = [len(ids) - 1] if positions == "last" else list(range(len(ids)))
        assert found["position"][rows].tolist() == places
        assert found["token"][rows].tolist() == [ids[place] for place in places]
        for layer in (0, 2, 4):
            want = alone(model, tokenizer, lines[number], layer)[places]
            torch.testing.assert_close(found[layer][rows], want, rtol=1e-4, atol=1e-4)


def test_the_index_tells_where_the_vectors_are_from(llama, prompts, tmp_path):
    harvest_activations(*llama, prompts, tmp_path, layers=-1, shard=50)
    about = json.loads((tmp_path / "index.json").read_text())
    assert about["revision"].startswith("weights ") and about["model"].endswith("llama")
    kept = {"layers": [4], "positions": "last", "dtype": "float32", "hidden": 32}
    assert about == {**about, **kept, "lines": 57, "shard": 50, "shards": 2}


def test_a_model_of_the_hub_is_told_by_its_commit(llama, monkeypatch):
    model, _ = llama
    monkeypatch.setattr(model.config, "_commit_hash", "0123abc", raising=False)
    assert model_revision(model) == "0123abc"


def test_bfloat16_is_kept_as_it_is(folder, prompts, tmp_path):
    model, tokenizer = load_model(folder / "llama", device="cpu", dtype="bfloat16")
    harvest_activations(model, tokenizer, prompts, tmp_path, layers=2)
    assert read_harvest(tmp_path)[2].dtype == read_harvest(tmp_path)[2][:3].dtype == torch.bfloat16
    size = sum(path.stat().st_size for path in tmp_path.glob("*.safetensors"))
    assert 55 * 32 * 2 < size < 55 * 32 * 2 + 55 * 3 * 8 + 1000


def test_a_model_whose_layers_lie_on_different_devices(folder, prompts, tmp_path):
    """Half of the layers on disk, which is what can be had without two GPUs."""
    whole, tokenizer = load_model(folder / "llama", device="cpu")
    split, _ = load_model(folder / "llama", device="cpu")
    places = {"model.embed_tokens": "cpu", "model.rotary_emb": "cpu", "model.norm": "cpu"}
    places |= {f"model.layers.{i}": "cpu" if i < 2 else "disk" for i in range(4)}
    places["lm_head"] = "cpu"
    split = accelerate.dispatch_model(
        split, places, main_device="cpu", offload_dir=str(tmp_path / "weights")
    )
    assert next(split.model.layers[3].parameters()).device.type == "meta"
    options = {"layers": [0, 2, 4], "shard": 20}
    for model, out in ((whole, tmp_path / "whole"), (split, tmp_path / "split")):
        harvest_activations(model, tokenizer, prompts, out, **options)
    for layer in (0, 2, 4):
        assert torch.equal(
            read_harvest(tmp_path / "split")[layer][:], read_harvest(tmp_path / "whole")[layer][:]
        )


@pytest.mark.parametrize("tokens", [1, 60, 1000])
def test_no_pass_is_larger_and_no_more_than_a_shard_is_kept(
    tokens, llama, prompts, tmp_path, monkeypatch
):
    seen, windows = [], []

    def read(model, input_ids, **options):
        seen.append(input_ids.shape)
        return read_activations(model, input_ids, **options)

    def texts(self, items, first):
        windows.append(len(items))
        return real(self, items, first)

    real = Prompts._window
    monkeypatch.setattr(harvest, "read_activations", read)
    monkeypatch.setattr(Prompts, "_window", texts)
    harvest_activations(*llama, prompts, tmp_path, layers=1, shard=20, batch_tokens=tokens)
    assert all(rows == 1 or rows * seq <= tokens for rows, seq in seen)
    assert sum(rows for rows, _ in seen) == 55 and windows == [20, 20, 17]


# Going on, and refusing to


def test_what_is_there_stays_and_what_is_missing_is_made(llama, prompts, tmp_path):
    assert harvest_activations(*llama, prompts, tmp_path, layers=[1], shard=10) == 6
    before = files(tmp_path)
    kept = os.stat(tmp_path / "shard-000001.safetensors").st_mtime_ns
    (tmp_path / "shard-000002.safetensors").unlink()
    (tmp_path / "shard-000002.safetensors.box.7.tmp").write_bytes(b"half of it")
    with pytest.raises(ValueError, match=r"shards are missing \(1 of 6\)"):
        read_harvest(tmp_path)
    assert harvest_activations(*llama, prompts, tmp_path, layers=[1], shard=10) == 1
    assert files(tmp_path) == before
    assert os.stat(tmp_path / "shard-000001.safetensors").st_mtime_ns == kept


@pytest.mark.parametrize("kind", [OSError, SafetensorError])
def test_a_full_disk_loses_nothing_that_was_written(llama, prompts, tmp_path, monkeypatch, kind):
    def until_full(columns, file, metadata):
        if (tmp_path / "shard-000001.safetensors").exists():
            Path(file).write_bytes(b"the beginning")
            raise kind("No space left on device")
        save_file(columns, file, metadata)

    monkeypatch.setattr(harvest, "save_file", until_full)
    with pytest.raises(
        OSError, match=r"000002.safe.* could not be written: No space.* allow writing.*same"
    ):
        harvest_activations(*llama, prompts, tmp_path, layers=[1], shard=10)
    assert sorted(files(tmp_path)) == [
        "index.json",
        "shard-000000.safetensors",
        "shard-000001.safetensors",
    ]
    monkeypatch.undo()
    assert harvest_activations(*llama, prompts, tmp_path, layers=[1], shard=10) == 4


@pytest.mark.parametrize("rest", [b"", b"xx", 100])
def test_a_shard_cut_short_is_named_and_made_again_once_it_is_gone(llama, prompts, tmp_path, rest):
    options = {"layers": [1], "shard": 10}
    harvest_activations(*llama, prompts, tmp_path, **options)
    before, path = files(tmp_path), tmp_path / "shard-000003.safetensors"
    path.write_bytes(path.read_bytes()[:-rest] if isinstance(rest, int) else rest)
    told = r"shard-000003.safetensors' is not a whole shard.*Delete it and run the same command"
    for again in (
        lambda: harvest_activations(*llama, prompts, tmp_path, **options),
        lambda: read_harvest(tmp_path),
    ):
        with pytest.raises(ValueError, match=told):
            again()
    path.unlink()
    assert harvest_activations(*llama, prompts, tmp_path, **options) == 1
    assert files(tmp_path) == before


@pytest.mark.parametrize("text", ["", '{"shards": ', "[]", '{"shards": 3}'])
def test_an_index_cut_short_is_named(llama, prompts, tmp_path, text):
    harvest_activations(*llama, prompts, tmp_path, layers=[1], shard=10)
    before = files(tmp_path)
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(ValueError, match=r"index.json' is not the index of a harvest"):
        read_harvest(tmp_path)
    with pytest.raises(ValueError, match=r"index.json' is not the index.*The shards stay"):
        harvest_activations(*llama, prompts, tmp_path, layers=[1], shard=10)
    (tmp_path / "index.json").unlink()
    assert harvest_activations(*llama, prompts, tmp_path, layers=[1], shard=10) == 0
    assert files(tmp_path) == before


def test_two_models_or_settings_do_not_mix(llama, folder, prompts, tmp_path):
    harvest_activations(*llama, prompts, tmp_path, layers=[1], shard=10)
    before = files(tmp_path)
    other = load_model(folder / "other", device="cpu")
    half = load_model(folder / "llama", device="cpu", dtype="bfloat16")
    for who, options, told in [
        (other, {}, "revision weights"),
        (half, {}, "dtype float32 in the folder, bfloat16 in this call"),
        (llama, {"layers": [1, 2]}, r"layers \[1\] in the folder, \[1, 2\] in this call"),
        (llama, {"positions": "all"}, "positions last in the folder, all in this call"),
        (llama, {"shard": 11}, "shard 10 in the folder, 11 in this call"),
    ]:
        with pytest.raises(ValueError, match=told):
            harvest_activations(*who, prompts, tmp_path, **{"layers": [1], "shard": 10, **options})
    assert files(tmp_path) == before


def test_other_prompts_are_refused(llama, prompts, tmp_path):
    changed = tmp_path / "prompts.txt"
    changed.write_text(prompts.read_text())
    options = {"layers": 1, "shard": 10}
    harvest_activations(*llama, changed, tmp_path / "out", **options)
    changed.write_text(prompts.read_text().replace("Anna", "Anne", 1))
    with pytest.raises(ValueError, match=r"shard-000000.safetensors' was made from other prompts"):
        harvest_activations(*llama, changed, tmp_path / "out", **options)
    changed.write_text(prompts.read_text() + "\none more")
    with pytest.raises(ValueError, match="lines 57 in the folder, 58 in this call"):
        harvest_activations(*llama, changed, tmp_path / "out", **options)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"", "has no prompt in it"),
        (b"\n \n", "has no prompt in it"),
        (b"good\nb\xe4d\n", "line 2 of .* is not UTF-8"),
        (b"good\n" + b"long " * 300, "line 2 of .* is too long: .* at most 256"),
        ("good\nGlück\n".encode("utf-16"), "line 1 of .* is not UTF-8"),
        ("good\nGlück\n".encode("utf-16-le"), "line 1 of .* holds zero bytes, as UTF-16.* UTF-8"),
        (b"good\n\na\x07\n\x07\x07\n", "line 4 of .* gives no tokens"),
        (b"good\na [NEW] word", r"line 2 of .* this model does not know: '\[NEW\]'"),
    ],
)
def test_bad_prompts_are_told_by_their_line(text, told, llama, tmp_path):
    model, tokenizer = llama[0], copy.deepcopy(llama[1])
    tokenizer.add_tokens(["[NEW]"])
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("\x07", "")
    llama = model, tokenizer
    (tmp_path / "prompts.txt").write_bytes(text)
    with pytest.raises(ValueError, match=told):
        harvest_activations(*llama, tmp_path / "prompts.txt", tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"positions": "first"}, "positions are 'last' or 'all'"),
        ({"shard": 0}, "shard=0"),
        ({"batch_tokens": 0}, "batch_tokens=0"),
        ({"process": 2, "processes": 2}, "process 2 of 2"),
        ({"layers": 5}, "layers 0 to 4"),
    ],
)
def test_bad_options(options, told, llama, prompts, tmp_path):
    with pytest.raises(ValueError, match=told):
        harvest_activations(*llama, prompts, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_line_with_numbers_that_are_not_finite_is_named(folder, prompts, tmp_path):
    model, tokenizer = load_model(folder / "llama", device="cpu", dtype="float16")
    ids = tokenizer(" dark", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        model.model.embed_tokens.weight[ids[-1]] = float("inf")
    with pytest.raises(ValueError, match=r"is not finite in float16.*bfloat16") as caught:
        harvest_activations(model, tokenizer, prompts, tmp_path, positions="all")
    line = int(re.match(r"line (\d+) of", str(caught.value))[1])
    assert ids[-1] in tokenizer(prompts.read_text().split("\n")[line - 1])["input_ids"]
    assert not list(tmp_path.glob("*.safetensors"))


def test_what_cannot_be_read_twice_is_refused(llama, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, message in (("pipe", "is not a plain file"), (".", "is a folder: give one file")):
        with pytest.raises(ValueError, match=message):
            harvest_activations(*llama, tmp_path / name, tmp_path / "out")


def test_prompts_are_read_as_encode_reads_them(llama, tmp_path):
    """Without the EOS that a tokenizer puts after a text; by a model that has no mask, too."""
    model, tokenizer = llama[0], copy.deepcopy(llama[1])
    texts = ["The dog", "The capital of France is"]
    (tmp_path / "prompts.txt").write_text("\n".join(texts))
    end = tokenizer.eos_token
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, tokenizer.eos_token_id)]
    )
    rnn = architectures.build("rwkv")
    numbers = tmp_path / "numbers.txt"
    numbers.write_text("5 9\n8 3 77 41 20\n")
    for who, path in (
        ((model, tokenizer), tmp_path / "prompts.txt"),
        ((rnn, NumberTokenizer()), numbers),
    ):
        out = tmp_path / path.stem
        harvest_activations(*who, path, out, layers=2)
        for row, text in zip(read_harvest(out)[2][:], path.read_text().splitlines()):
            ids = encode(*who, text)["input_ids"]
            torch.testing.assert_close(row, read_activations(who[0], ids, layers=2)[2][0, -1])


def test_windows_line_ends_and_marks_are_no_part_of_a_prompt(llama, tmp_path):
    (tmp_path / "unix.txt").write_bytes(b"Anna went\nto Oslo\n")
    (tmp_path / "windows.txt").write_bytes(b"\xef\xbb\xbfAnna went\r\nto Oslo\r\n")
    for name in ("unix", "windows"):
        harvest_activations(*llama, tmp_path / f"{name}.txt", tmp_path / name, layers=3)
    unix, windows = (read_harvest(tmp_path / name)[3][:] for name in ("unix", "windows"))
    assert torch.equal(unix, windows)


def test_who_is_done_takes_over_what_is_missing_from_the_end_on(llama, prompts, tmp_path):
    options = {"layers": 1, "shard": 10, "process": 1, "processes": 4, "take_over": True}
    assert harvest_activations(*llama, prompts, tmp_path, layers=1, shard=10, processes=4) == 2
    times = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("shard-*")}
    assert harvest_activations(*llama, prompts, tmp_path, **options) == 4
    stat = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("shard-*")}
    assert stat.items() >= times.items() and len(read_harvest(tmp_path)[1]) == 55
    later = sorted(set(stat) - set(times), key=stat.__getitem__)
    assert [name[11:12] for name in later] == ["1", "5", "3", "2"]
    stream = iter(["one", "two"])
    with pytest.raises(ValueError, match="a stream is read only once"):
        harvest_activations(*llama, stream, tmp_path / "other", take_over=True)


def test_who_comes_second_to_a_shard_leaves_it(llama, prompts, tmp_path, monkeypatch):
    """Another process has written it in the meantime, and swept up what looked like leftovers."""

    def save_second(columns, file, metadata):
        save_file(columns, str(file).partition(".safetensors")[0] + ".safetensors", metadata)
        raise FileNotFoundError(file)

    monkeypatch.setattr(harvest, "save_file", save_second)
    assert harvest_activations(*llama, prompts, tmp_path, layers=1, shard=10) == 6
    assert len(read_harvest(tmp_path)[1]) == 55


def test_the_next_texts_are_read_and_a_shard_is_written_beside_the_passes(
    llama, prompts, tmp_path, monkeypatch
):
    """While the model runs on a shard, other threads tokenize the next one and write the last."""
    events, main = [], threading.current_thread()

    def watched(name, function):
        def run(*args, **options):
            events.append((name, threading.current_thread() is main))
            return function(*args, **options)

        return run

    for name in ("checked_ids", "read_activations", "save_file"):
        monkeypatch.setattr(harvest, name, watched(name, getattr(harvest, name)))
    harvest_activations(*llama, prompts, tmp_path, layers=1, shard=10, batch_tokens=100)
    assert set(events) == {
        ("checked_ids", False),
        ("read_activations", True),
        ("save_file", False),
    }
    names = [name for name, _ in events]
    assert names.index("read_activations") < len(names) - 1 - names[::-1].index("checked_ids")
    assert names.index("save_file") < len(names) - 1 - names[::-1].index("read_activations")


def test_the_model_or_the_disk_is_at_work_nearly_all_the_time(pocket, tmp_path, capsys):
    """With all positions; which of them, the progress bar says at its end."""
    model, tokenizer = pocket
    texts = [f"Anna went to the park and saw {number} dogs. " * 4 for number in range(400)]
    options = {"positions": "all", "shard": 50, "progress": True}
    harvest_activations(model, tokenizer, texts, tmp_path, **options)
    shown = capsys.readouterr().err
    shares = re.search(r"text (\d+)%, model (\d+)%, disk (\d+)%; the (\w+) sets", shown)
    assert max(int(shares[2]), int(shares[3])) >= 80 and shares[4] in ("model", "disk")


def test_each_process_takes_its_share(llama, prompts, tmp_path):
    counts = [
        harvest_activations(
            *llama, prompts, tmp_path, layers=1, shard=10, process=process, processes=4
        )
        for process in range(4)
    ]
    assert counts == [2, 2, 1, 1] and len(read_harvest(tmp_path)[1]) == 55
