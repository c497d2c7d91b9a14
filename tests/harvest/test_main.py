"""The command line: whole whatever happens, alone or as several processes, plain about errors."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import fake_hub
from tutorial_utils.harvest import __main__ as command_line


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


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


def test_four_shares_and_what_a_lost_machine_left(folder, tmp_path):
    """One of four processes that know nothing of each other is killed; the others do its work."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["tutorial_utils.harvest.__main__", "tutorial_utils.models.load"]
    )

    def start(out: Path, *share: str):
        command = [folder / "prompts.txt", "--out", out, "--model", folder / "llama", *share]
        command += ["--layers=0,2,4", "--positions=all", "--shard=2", "--batch-tokens=64"]
        process = context.Process(target=command_line.main, args=(list(map(str, command)),))
        process.start()
        return process

    start(tmp_path / "whole").join()
    whole = files(tmp_path / "whole")
    out = tmp_path / "shares"
    lost, *others = [start(out, f"--share={number}/4") for number in (2, 1, 3, 4)]
    while not list(out.glob("shard-*")):
        time.sleep(0.005)
    os.kill(lost.pid, signal.SIGKILL)
    for process in others:
        process.join()
    assert files(out).keys() >= whole.keys()
    left = out / "shard-000001.safetensors"  # of the second share, and of a run before
    left.unlink()
    start(out, "--share=4/4").join()
    assert files(out) == whole


@pytest.mark.parametrize("share", ["0/4", "5/4", "3", "a/b", "1/0", "-1/4"])
def test_what_is_no_share(share, capsys):
    with pytest.raises(SystemExit):
        command_line.main(["prompts.txt", "--out", "out", f"--share={share}"])
    assert "is not a share such as 3/8, from 1/8 to 8/8" in capsys.readouterr().err


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
    assert "shards in the folder: 12 of 12" in shown and "prompt/s" in shown and "100%" in shown
    assert re.search(r"at work: text \d+%, model \d+%, disk \d+%; the \w+ sets the pace", shown)
    # --multi_gpu starts several processes, on a machine without a GPU as well.
    two = ["--multi_gpu", "--num_processes=2", "--num_machines=1", "--mixed_precision=no"]
    accelerate = [sys.executable, "-m", "accelerate.commands.launch", *two, "--dynamo_backend=no"]
    shown = launch(folder, tmp_path / "two", *accelerate)
    assert "process 0: " in shown and "process 1: " in shown
    assert files(tmp_path / "two") == files(tmp_path / "one")


def test_the_command_line_tells_what_is_wrong(folder, tmp_path, capsys, monkeypatch):
    command = [str(tmp_path / "nowhere.txt"), "--out", str(tmp_path / "out")]
    assert command_line.main(command) == 1
    assert "nowhere.txt" in capsys.readouterr().err
    command[0] = str(folder / "prompts.txt")
    assert command_line.main([*command, "--model", str(folder / "llama"), "--layers", "7"]) == 1
    assert "layer 7 is not in this model: it has layers 0 to 4" in capsys.readouterr().err

    command += ["--model", str(folder / "llama")]
    for error, told in (
        (KeyboardInterrupt(), "continues from here"),
        (
            RuntimeError("one thing\nafter another"),
            "error: RuntimeError: one thing after another",
        ),
        (KeyError("shards"), "error: KeyError: 'shards'\n"),
        (
            torch.OutOfMemoryError("2 GiB"),
            "memory is full: give a smaller --batch-tokens",
        ),
        (MemoryError(), "error: MemoryError"),
    ):

        def fails(*args, error=error, **options):
            raise error

        monkeypatch.setattr(command_line, "harvest_activations", fails)
        assert command_line.main(command) == 1
        assert told in capsys.readouterr().err


@pytest.mark.parametrize("layers", [["--layers", "-4,-1"], ["--layers=-4,-1"], ["--layers", "1,4"]])
def test_layers_that_count_from_the_end(layers, folder, tmp_path):
    command = [folder / "prompts.txt", "--out", tmp_path / "out", "--model", folder / "llama"]
    assert command_line.main([*map(str, command), *layers]) == 0
    assert json.loads((tmp_path / "out" / "index.json").read_text())["layers"] == [1, 4]


def test_layers_that_are_no_numbers(capsys):
    with pytest.raises(SystemExit):
        command_line.main(["prompts.txt", "--out", "out", "--layers", "all"])
    assert "'all' is not a list such as 4,8 or -1" in capsys.readouterr().err
