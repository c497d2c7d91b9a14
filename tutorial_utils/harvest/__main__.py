"""The command line of the harvest: the activations of many prompts, written to disk.

python -m tutorial_utils.harvest prompts.txt --layers 4,8 --positions last --out activations/
accelerate launch --multi_gpu --num_processes 2 -m tutorial_utils.harvest prompts.txt ...
python -m tutorial_utils.harvest prompts.txt --share 3/8 ...
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tutorial_utils.harvest.files import missing_shards, read_index
from tutorial_utils.harvest.prompts import count_lines
from tutorial_utils.harvest.write import POSITIONS, harvest_activations
from tutorial_utils.models.load import load_model, pick_device


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: 0 if all went well, 1 after an error (one line), 2 for wrong options."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if "--layers" in given[:-1]:  # argparse would take -4,-1 for an option
        at = given.index("--layers")
        given[at : at + 2] = [f"--layers={given[at + 1]}"]
    parser = argparse.ArgumentParser(
        prog="python -m tutorial_utils.harvest",
        description="Write the activations of many prompts to disk. The same command continues "
        "where it was stopped. Under `accelerate launch`, the processes share the work. With "
        "--share, processes that are started one by one share it.",
    )
    parser.add_argument(
        "prompts",
        type=Path,
        help='a text file with a prompt on each line, or .jsonl with a {"text": ...} on each line',
    )
    parser.add_argument("--out", type=Path, required=True, help="the folder to write to")
    parser.add_argument(
        "--model", help="as in load_model; the default is TUTORIAL_MODEL, or the shipped model"
    )
    parser.add_argument("--layers", type=_numbers, help="such as 4,8; the default is all")
    parser.add_argument("--positions", choices=POSITIONS, default="last")
    parser.add_argument("--shard", type=int, default=512, help="prompts in a file (512)")
    parser.add_argument("--batch-tokens", type=int, default=4096, help="tokens in one pass (4096)")
    parser.add_argument(
        "--share",
        type=_share,
        help="such as 3/8: the third of eight processes that a scheduler starts one by one, with "
        "--out on storage that all of them see. A process that is done takes over missing shards",
    )
    options = vars(parser.parse_args(given))
    try:
        return _run(options.pop("model"), options.pop("share"), options)
    except KeyboardInterrupt:
        print("\nStopped. The same command continues from here.", file=sys.stderr)
    except Exception as error:
        print(f"error: {_in_one_line(error)}", file=sys.stderr)
    return 1


def _in_one_line(error: Exception) -> str:
    """What went wrong; its kind too, where nobody here wrote the message."""
    text = " ".join(str(error).split())
    if isinstance(error, torch.OutOfMemoryError):
        return f"the GPU's memory is full: give a smaller --batch-tokens ({text})"
    is_ours = isinstance(error, (ValueError, OSError, MemoryError))
    return text if is_ours and text else f"{type(error).__name__}: {text}"


def _run(name: str | None, share: tuple[int, int] | None, options: dict) -> int:
    count_lines(options["prompts"])  # before a large model is loaded for nothing
    if share is None:
        who, number = "process", _run_with_others(name, options)
    else:
        who, number = "share", share[0]
        model, tokenizer = load_model(name)
        part: dict[str, Any] = {"process": number - 1, "processes": share[1], "take_over": True}
        harvest_activations(model, tokenizer, **options, **part, progress=True)
    about = read_index(options["out"])
    there = about["shards"] - len(missing_shards(options["out"], about["shards"]))
    print(f"{who} {number}: shards in the folder: {there} of {about['shards']}")
    return 0


def _run_with_others(name: str | None, options: dict) -> int:
    """Run as one of the processes that `accelerate launch` started, or alone; the number of it."""
    from accelerate import PartialState

    state = PartialState(cpu=pick_device().type == "cpu")  # or it takes itself for the only process
    alone = state.num_processes == 1
    model, tokenizer = load_model(name, device=None if alone else state.device)
    part: dict[str, Any] = {"process": state.process_index, "processes": state.num_processes}
    try:
        harvest_activations(model, tokenizer, **options, **part, progress=state.is_main_process)
    finally:
        state.destroy_process_group()
    return state.process_index


def _share(text: str) -> tuple[int, int]:
    number, _, of = text.partition("/")
    if not (number.isdigit() and of.isdigit() and 1 <= int(number) <= int(of)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a share such as 3/8, from 1/8 to 8/8")
    return int(number), int(of)


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list such as 4,8 or -1") from None


if __name__ == "__main__":
    sys.exit(main())
