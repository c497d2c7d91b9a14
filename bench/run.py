"""Times reading activations with this package and with others: `make bench`.

Each tool lives in an environment of its own, made here, and in a process of its own. A round runs
every tool once, in an order drawn anew, and next to it the bare forward pass of the same process.
What is reported is the ratio of the two, by its median and quartiles over the rounds. The bare
pass runs a second time as if it were a tool: the quartiles of that ratio are the control, which
say what this machine can tell apart.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import processes  # noqa: E402
import report  # noqa: E402
from jobs import GROUPS as JOB_GROUPS  # noqa: E402
from tools import GROUPS as TOOL_GROUPS  # noqa: E402

from models import SHIPPED  # noqa: E402
from tutorial_utils.models.gguf import SMOLLM2, find_smollm2, unpack  # noqa: E402

RESULTS = HERE / "results.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--rounds",
        type=int,
        default=30,
        help="pairs for each row, three times as many for short ones (30)",
    )
    parser.add_argument("--most", type=float, default=1e9, help="seconds for a row, at most")
    parser.add_argument("--rows", default="", help="only rows with this in their name")
    parser.add_argument("--skip", help="leave out rows with this in their name")
    parser.add_argument("--jobs", type=int, default=5, help="rounds of the whole jobs (5)")
    parser.add_argument("--core", type=int, default=0, help="the core to run on (0)")
    here = "one core of this machine"
    parser.add_argument("--machine", default=here, help="the machine in words, for the page")
    arguments = parser.parse_args()
    machine = arguments.machine
    pythons = {group: environment(group) for group in groups()}
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {arguments.core})  # the workers inherit it
    workers = {group: Worker(python, group) for group, python in pythons.items()}
    readers = {group: workers[group] for group in TOOL_GROUPS}
    smollm2 = unpack(find_smollm2(), SMOLLM2)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"rows": {}}
    results["versions"] = {group: worker.ask("versions") for group, worker in workers.items()}
    print(json.dumps(results["versions"], indent=1))
    for model, batch, seq in reversed(report.ROWS):  # the longest first
        name = report.row_name(model, batch, seq)
        if arguments.rows in name and not (arguments.skip and arguments.skip in name):
            rows = results["rows"]
            rows[name] = measure(readers, (model, batch, seq), arguments.rounds, arguments.most)
            show(name, rows[name])
            order = [report.row_name(*row) for row in report.ROWS]
            results["rows"] = {other: rows[other] for other in order if other in rows}
            results |= {"date": str(date.today()), "machine": machine}
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    if arguments.jobs:
        in_jobs = {group: workers[group] for group in JOB_GROUPS}
        results["jobs"], results["harvest"] = {}, {}
        results["jobs_on"] = f"{machine}, on {date.today()}"
        for model, folder in (("pocket-llama", SHIPPED), (SMOLLM2, smollm2)):
            results["jobs"][model] = measure_jobs(in_jobs, folder, arguments.jobs)
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
            if os.cpu_count() > 1:
                rounds = min(3, arguments.jobs)
                results["harvest"][model] = processes.measure(model, folder, rounds)
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    results["memory"] = memory(readers)
    results["import_ms"], results["installed_bytes"] = import_ms(), installed_bytes()
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    report.main()


def groups() -> list[str]:
    """The names of the environments."""
    return ["ours", *requirements()]


def requirements() -> dict[str, str]:
    lines = (HERE / "peers.txt").read_text().splitlines()
    return {line.partition("==")[0]: line for line in lines if line and line[0] != "#"}


def environment(group: str) -> Path:
    """The Python of this tool's environment, which is made if it is not there."""
    if group == "ours":
        return Path(sys.executable)
    folder = HERE / ".envs" / group
    if not (folder / "ready").exists():
        make_environment(folder, requirements()[group])
    return folder / "bin/python"


def make_environment(folder: Path, requirement: str) -> None:
    from choose_torch import CPU_INDEX, cpu_index_answers, has_nvidia_gpu

    def pip(*arguments: str, pins: Path) -> bool:
        command = [folder / "bin/python", "-m", "pip", "install", "-q", "-c", pins, *arguments]
        return subprocess.run(command).returncode == 0

    print(f"making {folder.name}'s environment", flush=True)
    constraints = (ROOT / "constraints.txt").read_text()
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
    pins, torch_alone = folder / "pins.txt", folder / "torch.txt"
    wanted = ("torch=", "transformers=")
    lines = [line for line in constraints.splitlines() if line.startswith(wanted)]
    pins.write_text("\n".join(lines))
    torch_alone.write_text(lines[0])
    if sys.platform == "linux" and not has_nvidia_gpu() and cpu_index_answers():
        pip("--no-deps", "--extra-index-url", CPU_INDEX, "torch", pins=pins)
    # Some tools cannot use this transformers yet: they get the newest that they can.
    wanted = ["torch", *requirement.split()]
    if not pip(*wanted, pins=pins) and not pip(*wanted, pins=torch_alone):
        sys.exit(f"pip could not install {requirement}: its own message is above")
    (folder / "ready").touch()


class Worker:
    """A process that runs the tools of one environment."""

    def __init__(self, python: Path, group: str):
        command = [python, str(HERE / "worker.py"), group]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)

    def ask(self, *command):
        print(json.dumps(command), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.process.args[2]} ended: its own message is above")
        return json.loads(line)


def measure(workers: dict[str, Worker], row: tuple, rounds: int, most: float) -> dict:
    """For each tool its ratios to the bare forward pass, one for each round."""
    ready = {group: worker.ask("prepare", *row) for group, worker in workers.items()}
    tools = {group: answer["tools"] for group, answer in ready.items()}
    ratios, seconds = {name: [] for names in tools.values() for name in names}, []
    is_short = ready["ours"]["seconds"] < 0.02
    rounds *= 3 if is_short else 1  # noise is larger there, and a round is quick
    started = time.time()
    while len(ratios["bare again"]) < rounds and time.time() - started < most:
        for name, (took, bare) in one_round(workers, tools, is_short).items():
            ratios[name].append(took / bare)
            seconds.append(bare)
    return {
        "pairs": len(ratios["bare again"]),
        "bare_ms": round(1e3 * sorted(seconds)[len(seconds) // 2], 3),
        "minutes": round((time.time() - started) / 60, 1),
        "ratios": {name: [round(r, 4) for r in values] for name, values in ratios.items()},
    }


def measure_jobs(workers: dict[str, Worker], folder: Path, rounds: int) -> dict:
    """{job: {tool: its times, one for each round, as multiples of ours}}, and ours in seconds.

    In a round each job is done by all tools, one after the other, in an order drawn anew.
    """
    names = {group: worker.ask("jobs", str(folder)) for group, worker in workers.items()}
    where = {name: group for group, found in names.items() for name in found}
    jobs = dict.fromkeys(name.split(": ")[0] for name in where)
    found: dict = {job: {"ours, seconds": []} for job in jobs}
    with tempfile.TemporaryDirectory() as results:
        for name in sorted(where, key=lambda name: "plain" not in name):  # plain code first
            file = Path(results) / f"{name.split(': ')[0]}.pt"
            workers[where[name]].ask("check job", name, str(file))
    for _ in range(rounds):
        for job in jobs:
            tools = [name for name in where if name.startswith(f"{job}: ")]
            took = {}
            for name in random.sample(tools, len(tools)):
                took[name.split(": ")[1]] = workers[where[name]].ask("run", name)[0]
            found[job]["ours, seconds"].append(round(took["ours"], 5))
            for tool, seconds in took.items():
                if tool != "ours":
                    found[job].setdefault(tool, []).append(round(seconds / took["ours"], 4))
    for job, tools in found.items():
        print(f"{folder.name}, {job}:", {tool: median(values) for tool, values in tools.items()})
    return found


def one_round(workers: dict[str, Worker], tools: dict[str, list], is_short: bool) -> dict:
    """The seconds of each tool and of the bare pass it is compared with."""
    took = {}
    for group in random.sample(list(workers), len(workers)):
        names = random.sample(tools[group], len(tools[group]))
        if is_short:  # a bare pass beside each, first or last, as it falls
            order = [name for tool in names for name in random.sample(["bare", tool], 2)]
        else:
            order = random.sample(["bare", *names], len(names) + 1)
        # The first run warms up the caches of a processor that another process has used.
        seconds = workers[group].ask("run", "bare", *order)[1:]
        bares = [value for name, value in zip(order, seconds) if name == "bare"]
        for name, bare in zip(names, bares if is_short else bares * len(names)):
            took[name] = seconds[order.index(name)], bare
    return took


def memory(workers: dict[str, Worker]) -> dict:
    """Peak and kept bytes of each tool, for all layers of 512 tokens."""
    found = {"bare": None}
    for worker in workers.values():
        names = worker.ask("prepare", "12 x 512", 1, 512)["tools"]
        found |= {name: worker.ask("memory", name) for name in names}
    found["bare"] = found.pop("bare again")
    return found


def import_ms() -> float:
    """The time that `import tutorial_utils` takes once torch and transformers are there."""
    code = (
        "import time, torch, transformers; started = time.perf_counter(); import tutorial_utils; "
        "print(time.perf_counter() - started)"
    )
    runs = [subprocess.check_output([sys.executable, "-c", code], cwd=ROOT) for _ in range(7)]
    return 1e3 * median(map(float, runs))


def installed_bytes() -> int:
    """The package as pip leaves it, with the compiled files, without the shipped model."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "tutorial_utils"
        leave_out = shutil.ignore_patterns("__pycache__", "pocket_llama")
        shutil.copytree(ROOT / "tutorial_utils", copy, ignore=leave_out)
        compileall.compile_dir(copy, quiet=1)
        return sum(path.stat().st_size for path in copy.rglob("*") if path.is_file())


def show(name: str, row: dict) -> None:
    print(f"{name}: bare {row['bare_ms']} ms, {row['pairs']} pairs, {row['minutes']} minutes")
    for tool, ratios in row["ratios"].items():
        low, middle, high = report.quartiles(ratios)
        print(f"  {tool:24} {middle:6.3f}  ({low:.3f} to {high:.3f})", flush=True)


if __name__ == "__main__":
    main()
