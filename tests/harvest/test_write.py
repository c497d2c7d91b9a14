"""A harvest: the same vectors as one prompt at a time, whole whatever happens, read back lazily."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import accelerate
import pytest
import torch
from safetensors.torch import load_file, save_file

import fake_hub
import tiny_models
from tutorial_utils import harvest_activations, load_model, read_activations, read_harvest
from tutorial_utils.harvest import __main__ as command_line
from tutorial_utils.harvest import write as harvest
from tutorial_utils.harvest.files import Column

PLACES = ["the park", "a very old and very dark house near the river", "Oslo", "the small school"]
LINES = [f"Anna{'.' * (i % 3)} went to {PLACES[i % 4]} {i} times." for i in range(57)]
LINES[7], LINES[30] = "", "   "  # left out


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A tiny Llama, a tiny GPT-2 and a file of prompts."""
    folder = tmp_path_factory.mktemp("harvest")
    tiny_models.make_llama(folder / "llama")
    tiny_models.make_llama(folder / "other", seed=1)
    tiny_models.make_gpt2(folder / "gpt2")
    (folder / "prompts.txt").write_text("\n".join(LINES), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def prompts(folder) -> Path:
    return folder / "prompts.txt"


@pytest.fixture(scope="module")
def llama(folder):
    return load_model(folder / "llama", device="cpu")


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
    full = [number for number, line in enumerate(LINES) if line.strip()]
    assert found["prompt"][:].unique().tolist() == full
    for number in full:
        rows = found["prompt"][:] == number
        ids = tokenizer(LINES[number])["input_ids"]
        places = [len(ids) - 1] if positions == "last" else list(range(len(ids)))
        assert found["position"][rows].tolist() == places
        assert found["token"][rows].tolist() == [ids[place] for place in places]
        for layer in (0, 2, 4):
            want = alone(model, tokenizer, LINES[number], layer)[places]
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
    assert harvest._revision(model) == "0123abc"


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


@pytest.mark.parametrize("tokens", [1, 40, 1000])
def test_a_batch_has_no_more_tokens_than_allowed_unless_it_is_one_prompt(tokens):
    lengths = [random.Random(tokens).randint(1, 60) for _ in range(100)]
    batches = list(harvest._batches(lengths, tokens))
    assert sorted(i for batch in batches for i in batch) == list(range(100))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= tokens


def test_no_pass_is_larger_and_no_more_than_a_shard_is_kept(llama, prompts, tmp_path, monkeypatch):
    seen, windows = [], []

    def read(model, ids, **options):
        seen.append(ids.numel())
        return read_activations(model, ids, **options)

    def texts(window, *rest):
        windows.append(len(window))
        return real(window, *rest)

    real = harvest._texts
    monkeypatch.setattr(harvest, "read_activations", read)
    monkeypatch.setattr(harvest, "_texts", texts)
    harvest_activations(*llama, prompts, tmp_path, layers=1, shard=20, batch_tokens=60)
    assert max(seen) <= 60 and windows == [20, 20, 17]


# Going on, and refusing to


def test_what_is_there_stays_and_what_is_missing_is_made(llama, prompts, tmp_path):
    assert harvest_activations(*llama, prompts, tmp_path, layers=[1], shard=10) == 6
    before = files(tmp_path)
    kept = os.stat(tmp_path / "shard-000001.safetensors").st_mtime_ns
    (tmp_path / "shard-000002.safetensors").unlink()
    (tmp_path / "shard-000002.safetensors.box.7.tmp").write_bytes(b"half of it")
    with pytest.raises(ValueError, match="1 of 6 shards are missing"):
        read_harvest(tmp_path)
    assert harvest_activations(*llama, prompts, tmp_path, layers=[1], shard=10) == 1
    assert files(tmp_path) == before
    assert os.stat(tmp_path / "shard-000001.safetensors").st_mtime_ns == kept


def test_a_write_that_fails_leaves_no_shard(llama, prompts, tmp_path, monkeypatch):
    def full(columns, file, metadata):
        Path(file).write_bytes(b"the beginning")
        raise OSError("no space left on device")

    monkeypatch.setattr(harvest, "save_file", full)
    with pytest.raises(OSError, match="no space"):
        harvest_activations(*llama, prompts, tmp_path)
    assert not list(tmp_path.glob("*.safetensors"))


def test_two_models_or_settings_do_not_mix(llama, folder, prompts, tmp_path):
    harvest_activations(*llama, prompts, tmp_path, layers=[1], shard=10)
    before = files(tmp_path)
    other = load_model(folder / "other", device="cpu")
    half = load_model(folder / "llama", device="cpu", dtype="bfloat16")
    for who, options, told in [
        (other, {}, "revision weights"),
        (half, {}, "dtype float32 there, bfloat16 now"),
        (llama, {"layers": [1, 2]}, r"layers \[1\] there, \[1, 2\] now"),
        (llama, {"positions": "all"}, "positions last there, all now"),
        (llama, {"shard": 11}, "shard 10 there, 11 now"),
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
    with pytest.raises(ValueError, match="shard-000000.safetensors' was made from other prompts"):
        harvest_activations(*llama, changed, tmp_path / "out", **options)
    changed.write_text(prompts.read_text() + "\none more")
    with pytest.raises(ValueError, match="lines 57 there, 58 now"):
        harvest_activations(*llama, changed, tmp_path / "out", **options)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"", "holds no prompt"),
        (b"\n \n", "holds no prompt"),
        (b"good\nb\xe4d\n", "line 2 of .* is not UTF-8"),
        (b"good\n" + b"long " * 300, "line 2 of .* is too long: .* at most 256"),
    ],
)
def test_bad_prompts_are_told_by_their_line(text, told, llama, tmp_path):
    (tmp_path / "prompts.txt").write_bytes(text)
    with pytest.raises(ValueError, match=told):
        harvest_activations(*llama, tmp_path / "prompts.txt", tmp_path / "out")


@pytest.mark.parametrize(
    "options",
    [{"positions": "first"}, {"shard": 0}, {"batch_tokens": 0}, {"process": 2, "processes": 2}],
)
def test_bad_options(options, llama, prompts, tmp_path):
    with pytest.raises(ValueError):
        harvest_activations(*llama, prompts, tmp_path / "out", **options)
    with pytest.raises(ValueError, match="layers 0 to 4"):
        harvest_activations(*llama, prompts, tmp_path / "out", layers=5)
    assert not (tmp_path / "out").exists()


def test_windows_line_ends_and_marks_are_no_part_of_a_prompt(llama, tmp_path):
    (tmp_path / "unix.txt").write_bytes(b"Anna went\nto Oslo\n")
    (tmp_path / "windows.txt").write_bytes(b"\xef\xbb\xbfAnna went\r\nto Oslo\r\n")
    for name in ("unix", "windows"):
        harvest_activations(*llama, tmp_path / f"{name}.txt", tmp_path / name, layers=3)
    unix, windows = (read_harvest(tmp_path / name)[3][:] for name in ("unix", "windows"))
    assert torch.equal(unix, windows)


# Killed at any moment


def test_nothing_is_lost_or_doubled_by_20_kills(folder, tmp_path):
    # The server imports everything once and computes nothing; each process is a fork of it.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["tutorial_utils.harvest.__main__", "tutorial_utils.models.load"]
    )

    def start(out: Path):
        command = [folder / "prompts.txt", "--out", out, "--model", folder / "llama"]
        command += ["--layers=0,2,4", "--positions=all", "--shard=2", "--batch-tokens=64"]
        process = context.Process(target=command_line.main, args=(list(map(str, command)),))
        process.start()
        return process

    for name in ("whole", "again"):  # the first one waits for the imports, too
        started = time.monotonic()
        start(tmp_path / name).join()
        seconds = time.monotonic() - started
    whole, moments, kills, unfinished, runs = files(tmp_path / "whole"), random.Random(0), 0, 0, 0
    assert len(whole) == 30 and files(tmp_path / "again") == whole
    while kills < 20:
        out, runs, done = tmp_path / f"killed {runs}", runs + 1, False
        while not done:  # then the next one begins in a new folder
            process = start(out)
            process.join(moments.uniform(0, seconds) if kills < 20 else None)
            done = process.exitcode is not None
            if not done:
                os.kill(process.pid, signal.SIGKILL)
                process.join()
                kills += 1
            there = list(out.glob("*.safetensors"))
            unfinished += not done and 0 < len(there) < 29
            for path in there:
                assert path.read_bytes() == whole[path.name]
        assert files(out) == whole
    assert unfinished > 0  # some were killed at work, and not while the model was loaded


# Several processes


def launch(folder: Path, out: Path, *launcher: str) -> str:
    command = [*launcher, "-m", "tutorial_utils.harvest", folder / "prompts.txt", "--out", out]
    command += ["--model", folder / "llama", "--layers=0,2,-1", "--shard=5"]
    result = subprocess.run(
        list(map(str, command)),
        env={**os.environ, "PYTHONPATH": fake_hub.python_path(), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr


def test_two_processes_write_the_same_as_one(folder, tmp_path):
    shown = launch(folder, tmp_path / "one", sys.executable)
    assert "12 of 12 shards are there" in shown and "prompt/s" in shown and "100%" in shown
    # --multi_gpu starts several processes, on a machine without a GPU as well.
    two = ["--multi_gpu", "--num_processes=2", "--num_machines=1", "--mixed_precision=no"]
    accelerate = [sys.executable, "-m", "accelerate.commands.launch", *two, "--dynamo_backend=no"]
    shown = launch(folder, tmp_path / "two", *accelerate)
    assert "process 0: " in shown and "process 1: " in shown
    assert files(tmp_path / "two") == files(tmp_path / "one")


def test_each_process_takes_its_share(llama, prompts, tmp_path):
    counts = [
        harvest_activations(
            *llama, prompts, tmp_path, layers=1, shard=10, process=process, processes=4
        )
        for process in range(4)
    ]
    assert counts == [2, 2, 1, 1] and len(read_harvest(tmp_path)[1]) == 55


def test_the_command_line_tells_what_is_wrong(folder, tmp_path, capsys, monkeypatch):
    command = [str(tmp_path / "nowhere.txt"), "--out", str(tmp_path / "out")]
    assert command_line.main(command) == 1
    assert "nowhere.txt" in capsys.readouterr().err
    command[0] = str(folder / "prompts.txt")
    assert command_line.main([*command, "--model", str(folder / "llama"), "--layers", "7"]) == 1
    assert "layer 7 is not in this model: it has layers 0 to 4" in capsys.readouterr().err

    def stopped(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(command_line, "harvest_activations", stopped)
    assert command_line.main([*command, "--model", str(folder / "llama")]) == 1
    assert "goes on from here" in capsys.readouterr().err


# Reading back


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
    assert column.shape == (10, 3) and len(column) == 10 and "3 shards" in repr(column)


@pytest.mark.parametrize("rows", [10, [-11], torch.ones(9, dtype=torch.bool)])
def test_rows_that_are_not_there(rows, column):
    with pytest.raises(IndexError):
        column[rows]


def test_only_the_rows_that_are_asked_for_are_read(tmp_path):
    path = tmp_path / "shard-000000.safetensors"
    save_file({"layer_0": torch.ones(2**17, 512)}, path)  # 256 MiB
    code = (
        "import resource, sys; from pathlib import Path; import torch\n"
        "from tutorial_utils.harvest.files import Column\n"
        "column = Column([Path(sys.argv[1])], 0)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert column[[5, 100_000]].sum() == 1024\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    environment = {**os.environ, "PYTHONPATH": fake_hub.python_path()}
    command = [sys.executable, "-c", code, str(path)]
    grown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(grown.stdout) * unit < 64 * 2**20
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss > 0
    assert load_file(path)["layer_0"].shape == (2**17, 512)


def test_where_there_is_no_harvest(tmp_path):
    with pytest.raises(OSError, match="there is no harvest"):
        read_harvest(tmp_path)
