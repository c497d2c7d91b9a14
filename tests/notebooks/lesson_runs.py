"""Runs a lesson the ways that its tests ask for, and writes down what went wrong."""

from __future__ import annotations

import ast
import asyncio
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from answers import EXERCISES, check_of
from lesson_contract import exercises
from notebook_tools import (
    COLOURS,
    WIDGET_MIME,
    code_cells,
    join_streams,
    kernel_environment,
    name_cell,
    read,
    seconds_of,
    tags,
)
from strict_client import StrictClient

# Addresses and ids differ from one run to the next, and mean nothing to a reader.
IDS = re.compile(r"0x[0-9a-f]{6,}|\b[0-9a-f]{32}\b|\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")


@dataclass
class Report:
    """What happened in one run of a lesson."""

    problems: list[str] = field(default_factory=list)
    # What the check of each exercise printed: with the stub, the solution and wrong answers in it.
    stubs: dict[int, str] = field(default_factory=dict)
    solutions: dict[int, str] = field(default_factory=dict)
    # By the wrong answer's source: a part of what the check must say, and what it printed.
    wrong: dict[int, dict[str, tuple[str, str]]] = field(default_factory=dict)
    moves: int = 0
    cells_seconds: float = 0.0  # from the start of the kernel to the end of the last cell
    seconds: float = 0.0  # the same with the controls moved
    gpu_bytes: int = 0  # the most that was allocated on a CUDA GPU
    result: Any = None  # on SmolLM2, what the cell tagged `real` left


def run_once(path: Path, **environment: str) -> Report:
    """Runs each cell once, then moves every control."""
    return asyncio.run(_run(path, twice=False, environment=environment))


def run_twice(path: Path, **environment: str) -> Report:
    """Runs each cell twice in a row, tries right and wrong answers, then moves every control."""
    return asyncio.run(_run(path, twice=True, environment=environment))


async def _run(path: Path, *, twice: bool, environment: dict[str, str]) -> Report:
    nb, report, started = read(path), Report(), monotonic()
    stubs = {id(stub): number for number, (stub, _, _) in enumerate(exercises(nb), start=1)}
    client = StrictClient(nb, (3 if twice else 2) * seconds_of(path.name), path.name)
    where = {"cwd": str(path.parent), "env": kernel_environment(**environment)}
    cell = code_cells(nb)[0]
    try:
        async with client.async_setup_kernel(**where):
            for index, cell in enumerate(nb.cells):
                first, before = await _execute(client, cell, index, twice)
                if "real" in tags(cell) and environment.get("TUTORIAL_MODEL") == "smollm2":
                    left = await client.ask("__import__('json').dumps(result)")
                    report.result = json.loads(left)
                if not twice or cell.cell_type != "code":
                    continue
                second, after = await _execute(client, cell, index, twice)
                report.problems += compare_runs(nb, cell, (first, before), (second, after))
                number = stubs.get(id(nb.cells[index - 1]))
                if number:
                    report.stubs[number] = printed(first)
                    solution = exercises(nb)[number - 1][2]
                    report.solutions[number] = await _try(client, number, solution)
                    report.wrong[number] = {
                        answer: (verdict, await _try(client, number, answer))
                        for verdict, answer in wrong_answers(cell.source, solution)
                    }
            report.cells_seconds = monotonic() - started
            report.moves = await _probe(client, "move_controls()")
            await client.settle()
            if client.swallowed:
                text = "\n".join(client.swallowed)
                report.problems.append(f"a control was moved and raised:\n{COLOURS.sub('', text)}")
            report.gpu_bytes = await _probe(client, "gpu_bytes()")
            hooks = await _probe(client, "own_hooks()")
            if hooks:
                report.problems.append(f"hooks left on a model at the end: {', '.join(hooks)}")
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        report.problems.append(f"{name_cell(nb, cell)}: {COLOURS.sub('', str(error))}")
    report.seconds = monotonic() - started
    return report


def wrong_answers(check: str, solution: str) -> list[tuple[str, str]]:
    """What is put into the stub of an exercise, each with a part of what its check must say.

    The first two of the check's table, and for functions the solution spoilt: it gives its first
    answer again and again.
    """
    exercise = EXERCISES.get(check_of(check))
    listed = exercise.wrong[:2] if exercise else []
    functions = [n.name for n in ast.parse(solution).body if isinstance(n, ast.FunctionDef)]
    spoil = "\n_first = []\ndef {0}(*args, _right={0}):\n    if not _first:\n"
    spoil += "        _first.append(_right(*args))\n    return _first[0]"
    constant = [("", solution + "\n" + spoil.format(functions[0]))] if functions else []
    named = f"{solution}\nright = {functions[0]}\n" if functions else ""  # as the table calls it
    return [(part, named * ("right(" in answer) + answer) for part, answer in listed] + constant


async def _execute(
    client: StrictClient, cell: NotebookNode, index: int, probe: bool
) -> tuple[list[NotebookNode], dict[str, str]]:
    await client.async_execute_cell(cell, index)
    marks = await _probe(client, "fingerprint()") if probe and cell.cell_type == "code" else {}
    return join_streams(cell.get("outputs", [])), marks


async def _probe(client: StrictClient, question: str) -> Any:
    """What a function of kernel_probe.py says inside the kernel."""
    here = str(Path(__file__).parent)
    probe = f"(__import__('sys').path.append({here!r}), __import__('kernel_probe'))[1]"
    return await client.ask(f"{probe}.{question}")


async def _try(client: StrictClient, number: int, answer: str) -> str:
    """Puts an answer in the stub's place, runs the check, and puts the stub back."""
    stub, check, _ = exercises(client.nb)[number - 1]
    index, source = client.nb.cells.index(stub), stub.source
    try:
        stub.source = answer
        await client.async_execute_cell(stub, index)
        await client.async_execute_cell(check, index + 1)
        text = printed(check.outputs)
    except CellExecutionError as error:
        text = COLOURS.sub("", str(error))
    stub.source = source
    await client.async_execute_cell(stub, index)
    return text


def printed(outputs: list[NotebookNode]) -> str:
    """The text that a reader sees in a cell's outputs."""
    texts = [
        output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs
    ]
    return "\n".join(text.strip() for text in texts)


def compare_runs(
    nb: NotebookNode,
    cell: NotebookNode,
    first: tuple[list[NotebookNode], dict[str, str]],
    second: tuple[list[NotebookNode], dict[str, str]],
) -> list[str]:
    """What differs between the outputs and variables after a cell's first run and its second."""
    varies, where = "varies" in tags(cell), name_cell(nb, cell)
    problems = []
    shown = [[_show(output, varies) for output in outputs] for outputs in (first[0], second[0])]
    if shown[0] != shown[1]:
        problems.append(
            f"{where} shows something else when it is run again:\n"
            f"--- first\n{_shorten(shown[0])}\n--- second\n{_shorten(shown[1])}"
        )
    if not varies:
        problems += [
            f"{where} changes `{name}` when it is run again: {old}, then {second[1].get(name)}"
            for name, old in first[1].items()
            if second[1].get(name) != old
        ]
    return problems


def _show(output: NotebookNode, varies: bool) -> Any:
    kind = output["output_type"]
    if kind == "stream":
        return [kind, output["name"], "" if varies else IDS.sub("…", output["text"])]
    data = output.get("data", {})
    if varies:
        return [kind, *sorted(data)]
    return [
        kind,
        *((m, "" if m == WIDGET_MIME else IDS.sub("…", str(data[m]))) for m in sorted(data)),
    ]


def _shorten(shown: list[Any]) -> str:
    return "\n".join(str(item)[:300] for item in shown)
