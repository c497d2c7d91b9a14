"""What runs the notebooks can fail: it is tried on notebooks that are broken on purpose."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest
from jupyter_client.asynchronous import AsyncKernelClient
from jupyter_client.channels import AsyncZMQSocketChannel
from nbclient.exceptions import CellTimeoutError
from nbmake.nb_run import NotebookRun

import notebook_tools
import run_notebooks
import strict_client
from notebook_tools import ROOT, new_notebook, read
from strict_client import StrictClient

HERE = Path(__file__).parent
BROKEN = {path.stem: path for path in sorted(HERE.glob("broken/*.ipynb"))}


def run_nbmake(report: Path, notebooks: list[Path], seconds: int) -> dict[str, str]:
    """The failure of each notebook, or an empty text, from a pytest of its own."""
    command = [sys.executable, "-m", "pytest", "--nbmake", "-q", "-p", "no:cacheprovider"]
    command += [f"--junitxml={report}", *map(str, notebooks)]
    environment = {**os.environ, "NOTEBOOK_SECONDS": str(seconds)}
    subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False)
    return {
        Path(case.get("name", "")).stem: "".join(failure.text or "" for failure in case)
        for case in ElementTree.parse(report).iter("testcase")
    }


@pytest.fixture(scope="module")
def failures(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("nbmake")
    paths = [path for name, path in BROKEN.items() if name != "too_slow"]
    paths.append(HERE / "good" / "widgets.ipynb")
    jobs = [(paths[::2], 120), (paths[1::2], 120), ([BROKEN["too_slow"]], 2)]
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(run_nbmake, folder / f"{i}.xml", *job) for i, job in enumerate(jobs)]
        return {name: text for run in runs for name, text in run.result().items()}


@pytest.mark.parametrize("name", BROKEN)
def test_nbmake_fails_a_broken_notebook(failures, name):
    assert read(BROKEN[name]).metadata.fails_with in failures[name]


def test_nbmake_passes_good_widgets(failures):
    assert len(failures) >= 17 and failures["widgets"] == ""


def test_kernels_are_not_asked_to_leave():
    assert StrictClient(new_notebook()).shutdown_kernel == "immediate"


def test_a_notebook_that_computes_for_too_long_fails():
    client = StrictClient(new_notebook("sum(range(3))"), seconds=0.01)
    client.timeout_func = lambda cell: 60
    with pytest.raises(CellTimeoutError, match=r"took .* s: 0.01 s at most"):
        client.execute()


def test_time_of_all_lessons_has_a_limit():
    assert not notebook_tools.are_too_slow({"a": notebook_tools.NOTEBOOK_SECONDS})
    seconds = dict.fromkeys("abcdefghijkl", notebook_tools.NOTEBOOK_SECONDS)
    assert notebook_tools.are_too_slow(seconds)
    assert "TOO SLOW" in notebook_tools.tell_seconds(seconds)[-1]


def test_a_lesson_that_trains_has_longer():
    usual = notebook_tools.NOTEBOOK_SECONDS
    assert notebook_tools.seconds_of("notebooks/04_sample.ipynb") == usual
    for subject, times in notebook_tools.LONGER.items():
        lesson = notebook_tools.lesson_on(subject.replace("_", " "))
        assert notebook_tools.seconds_of(lesson.name) == times * usual
        assert StrictClient(new_notebook(), name=str(lesson)).seconds == times * usual
    assert StrictClient(new_notebook()).seconds == usual


def test_make_test_runs_the_lessons_through_nbmake(pytestconfig):
    """conftest.py switches nbmake on; the Makefile points pytest at notebooks/."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    line = next(line for line in makefile.split("\n") if "-m pytest" in line)
    paths = [word for word in line.split("-m pytest")[1].split() if word[0] != "-"]
    assert "notebooks" in (paths or pytestconfig.getini("testpaths"))


# No wait is endless.


def watch_messages(monkeypatch, look) -> None:
    """Has `look` see each message of a kernel; one for which it is true is lost."""
    get_msg = AsyncZMQSocketChannel.get_msg

    async def get_watched_msg(channel, timeout=None):
        while look(msg := await get_msg(channel, timeout)):
            pass
        return msg

    monkeypatch.setattr(AsyncZMQSocketChannel, "get_msg", get_watched_msg)


@pytest.mark.parametrize("lost", ["execute_reply", "status", "the kernel"])
def test_a_lost_message_is_an_error_that_names_notebook_and_cell(lost, tmp_path, monkeypatch):
    def is_lost(msg):
        parent, state = msg["parent_header"].get("msg_type"), msg["content"].get("execution_state")
        return msg["msg_type"] == lost and parent == "execute_request" and state != "busy"

    watch_messages(monkeypatch, is_lost)
    monkeypatch.setattr(strict_client, "IDLE_SECONDS", 2)
    monkeypatch.setenv("PYTEST_CURRENT_TEST", "notebooks/sample.ipynb:: (call)")
    wait = "\nthreading.Event().wait(300)" if lost == "the kernel" else ""
    nb = new_notebook("import threading" + wait, "another = 1")
    nb.cells.insert(0, nbformat.v4.new_markdown_cell("text"))
    nbformat.write(nb, tmp_path / "sample.ipynb")
    error = NotebookRun(tmp_path / "sample.ipynb", 60).execute().error
    where = "notebooks/sample.ipynb, cell 2 (import threading)"
    assert error.summary.startswith(f"{where}: no answer, and the kernel has been idle for 2 s.")
    assert error.failing_cell_index == 1


def test_a_kernel_that_is_lost_before_the_first_cell_or_after_the_last_is_named(monkeypatch):
    """Told apart by what is asked: kernel_info before the first, `StrictClient.ask` after."""
    monkeypatch.setattr(strict_client, "IDLE_SECONDS", 1)
    client = StrictClient(new_notebook("x = 1"), name="sample.ipynb")

    async def never(*args, **kwargs):
        await asyncio.sleep(300)

    monkeypatch.setattr(AsyncKernelClient, "execute_interactive", never)
    with pytest.raises(CellTimeoutError, match=r"^sample\.ipynb, cell 1 \(x = 1\): no answer"):
        client.execute()
    monkeypatch.setattr(strict_client.NotebookClient, "async_wait_for_reply", never)
    with pytest.raises(CellTimeoutError, match=r"^sample\.ipynb, before its first cell: no answer"):
        StrictClient(new_notebook("x = 1"), name="sample.ipynb").execute()


def test_a_reply_that_came_unseen_is_found(monkeypatch):
    """What nbclient's `Output` does to the socket: see `StrictClient._watch`."""
    client = StrictClient(new_notebook("import time\nprint(1, flush=True)\ntime.sleep(0.5)"), 40)

    def take_the_signal(msg):
        if msg["msg_type"] == "stream":
            time.sleep(2)  # asyncio does not look while the reply comes
            client.kc.comm_info()

    watch_messages(monkeypatch, take_the_signal)
    started = time.monotonic()
    client.execute()
    assert time.monotonic() - started < 60  # without a second look, 120


BUSY = "import time\nend = time.process_time() + 4\nwhile time.process_time() < end:\n    pass"
CHILD = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {BUSY!r}])"


def test_a_kernel_that_computes_is_not_idle_nor_one_that_waits_for_a_program(monkeypatch):
    monkeypatch.setattr(strict_client, "IDLE_SECONDS", 2)
    StrictClient(new_notebook(BUSY, CHILD), 60).execute()


@pytest.mark.parametrize("failing", [1, 2])
def test_a_kernel_is_started_once_more(failing, monkeypatch):
    starts, wait_for_ready = [], AsyncKernelClient.wait_for_ready

    async def fail_first(client, **kwargs):
        starts.append(client)
        if len(starts) <= failing:
            raise RuntimeError("Kernel didn't respond")
        await wait_for_ready(client, **kwargs)

    monkeypatch.setattr(AsyncKernelClient, "wait_for_ready", fail_first)
    with nullcontext() if failing == 1 else pytest.raises(RuntimeError, match="didn't respond"):
        StrictClient(new_notebook("1")).execute()
    assert len(starts) == 2


def test_make_notebooks_leaves_a_broken_lesson_as_it_was(tmp_path, capsys, monkeypatch):
    path = tmp_path / "broken.ipynb"
    nbformat.write(new_notebook("print(1)", "int('x')"), path)
    before = path.read_bytes()
    monkeypatch.setattr(sys, "argv", ["run_notebooks.py", str(path)])
    assert run_notebooks.main() == 1
    assert path.read_bytes() == before
    assert "invalid literal" in capsys.readouterr().err
