"""Set-up: what it decides, what it says, and that its files agree. No test here uses a network."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"
sys.path.insert(0, str(SCRIPTS))

import choose_torch  # noqa: E402
import project_file  # noqa: E402
from choose_torch import MachineTorch, Plan, constraints_for, plan_torch  # noqa: E402

CONSTRAINTS = (ROOT / "constraints.txt").read_text()
CUDA_TORCH = MachineTorch("2.8.0+cu128", True, frozenset({"torch", "numpy", "sympy"}))


def parse(text: str) -> list[Requirement]:
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("-")]


def normalise(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


# Where torch comes from


@pytest.mark.parametrize(
    ("machine", "platform", "gpu", "answers", "source"),
    [
        (CUDA_TORCH, "linux", True, True, "machine"),
        (CUDA_TORCH, "linux", False, False, "machine"),
        (CUDA_TORCH._replace(version="2.6.0a0+ecf3bae40a.nv25.01"), "linux", True, True, "machine"),
        (CUDA_TORCH._replace(version="2.3.1+cu121"), "linux", True, True, "pip"),
        (CUDA_TORCH._replace(version="2.4.0a0+f70bd71a48.nv24.06"), "linux", True, True, "pip"),
        (CUDA_TORCH._replace(for_gpu=False), "linux", False, True, "cpu index"),
        (None, "linux", False, True, "cpu index"),
        (None, "linux", False, False, "pip"),
        (None, "linux", True, True, "pip"),
        (None, "darwin", False, True, "pip"),
    ],
)
def test_where_torch_comes_from(machine, platform, gpu, answers, source):
    plan = plan_torch(
        machine,
        project_file.TEXT,
        CONSTRAINTS,
        platform=platform,
        has_gpu=lambda: gpu,
        index_answers=lambda: answers,
    )
    assert plan.source == source
    expected = machine.version if source == "machine" else "2.13.0"
    assert expected in plan.reason


def test_says_so_when_the_index_of_cpu_builds_is_out_of_reach():
    asked = {"has_gpu": lambda: False, "index_answers": lambda: False, "platform": "linux"}
    plan = plan_torch(None, project_file.TEXT, CONSTRAINTS, **asked)
    assert choose_torch.CPU_INDEX in plan.reason and "does not answer" in plan.reason


def test_an_index_that_does_not_answer_is_no_error(monkeypatch):
    monkeypatch.setattr(choose_torch, "CPU_INDEX", "http://127.0.0.1:9")
    assert choose_torch.cpu_index_answers() is False


def test_pins_leave_the_machines_torch_and_what_it_stands_on_alone():
    pins = parse(constraints_for(Plan("machine", ""), CUDA_TORCH, CONSTRAINTS))
    names = {normalise(pin.name) for pin in pins}
    assert [str(pin.specifier) for pin in pins if pin.name == "torch"] == ["===2.8.0+cu128"]
    assert not {"numpy", "sympy"} & names
    assert {"transformers", "tokenizers", "jupyterlab"} <= names
    assert constraints_for(Plan("pip", ""), CUDA_TORCH, CONSTRAINTS) == CONSTRAINTS


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


def test_finds_the_machines_torch_without_importing_it(tmp_path):
    put_torch(tmp_path / "gpu")
    put_torch(tmp_path / "cpu", "2.13.0+cpu", "None")
    (tmp_path / "gpu/torch/__init__.py").write_text("raise ImportError('no driver')")
    needs = frozenset({"torch", "sympy"})
    found = choose_torch.find_machine_torch([str(tmp_path / "gpu")])
    assert found == MachineTorch("2.8.0+cu128", True, needs)
    assert choose_torch.find_machine_torch([str(tmp_path / "cpu")]).for_gpu is False
    assert choose_torch.find_machine_torch([str(tmp_path)]) is None


# The script as a whole, in a copy of the project whose path has a space


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "my lessons"
    (folder / "scripts").mkdir(parents=True)
    for name in ["setup_env.py", "choose_torch.py"]:
        shutil.copy(SCRIPTS / name, folder / "scripts")
    for name in ["Makefile", "requirements.txt", "constraints.txt", "pyproject.toml"]:
        shutil.copy(ROOT / name, folder)
    gpu_tool = folder / "bin/nvidia-smi"  # with a GPU, set-up does not ask for the CPU builds
    gpu_tool.parent.mkdir()
    gpu_tool.write_text("#!/bin/sh\n")
    gpu_tool.chmod(0o755)
    return folder


def run(command: list[object], cwd: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": "", "MAKEFLAGS": "", **extra}
    command = [str(part) for part in command]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def set_up(project: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    # The tests' own Python is in a virtual environment; a machine's is not.
    command = [sys._base_executable, "scripts/setup_env.py", *options]
    return run(command, project, PATH=f"{project / 'bin'}:{os.environ['PATH']}", **environment)


def put_venv(project: Path) -> Path:
    """A `.venv` that stands in for a whole one: all modules are there, its pip only takes notes."""
    python = project / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    notes = project / "notes.txt"
    notes.write_text("")
    python.write_text(
        f'#!/bin/sh\nif [ "$2" = pip ]; then echo "$@" >> "{notes}"; echo pip; exit 0; fi\n'
        f'PYTHONPATH="{ROOT}" exec "{sys.executable}" "$@"\n'
    )
    python.chmod(0o755)
    return notes


def test_a_second_run_has_nothing_to_do(project):
    notes = put_venv(project)
    first = set_up(project)
    assert first.returncode == 0, first.stderr
    assert re.search(r"Set-up took \d+ s. .venv takes \d+\.\d\d GB.", first.stdout)
    assert "-r requirements.txt" in notes.read_text()
    notes.write_text("")
    second = set_up(project)
    assert (second.returncode, second.stdout, notes.read_text()) == (0, "", "")


def test_changed_requirements_are_installed_into_the_venv_that_is_there(project):
    notes = put_venv(project)
    set_up(project)
    notes.write_text("")
    with (project / "requirements.txt").open("a") as file:
        file.write("wcwidth>=0.2\n")
    assert set_up(project).returncode == 0
    assert "-r requirements.txt" in notes.read_text() and (project / ".venv/bin/python").exists()


def make_script_that_stops_after_throwing_away(project: Path) -> None:
    """Making the new `.venv` takes seconds; what is tested is that it would be made."""
    script = project / "scripts/setup_env.py"
    text = script.read_text()
    assert "        make_venv(plan)\n" in text
    script.write_text(text.replace("        make_venv(plan)\n", '        sys.exit("makes it")\n'))


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


def test_a_folder_that_make_did_not_make_is_left_alone(project):
    (project / ".venv").mkdir()
    (project / ".venv/mine.txt").write_text("mine")
    result = set_up(project)
    assert result.returncode == 1 and "was not made by make" in result.stderr
    assert (project / ".venv/mine.txt").exists()


def test_names_debians_package_where_venv_is_missing(project, tmp_path):
    # Debian's python3 has no ensurepip until python3-venv is installed.
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['ensurepip'] = None\n")
    result = set_up(project, PYTHONPATH=str(tmp_path))
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert re.search(r"apt-get install -y python3(\.\d+)?-venv\n", result.stderr)
    assert not (project / ".venv").exists()


def test_says_so_where_there_is_no_python(project):
    result = run(["make", "setup", "PYTHON=python3.99"], project)
    assert result.returncode != 0
    assert "There is no python3.99 here" in result.stderr and "apt-get" in result.stderr


def test_an_older_python_gets_as_far_as_the_message_for_it():
    ast.parse((SCRIPTS / "setup_env.py").read_text(), feature_version=(3, 6))


def test_says_that_it_builds_on_the_machines_torch(project, tmp_path):
    put_torch(tmp_path / "machine")
    result = set_up(project, "--dry-run", PYTHONPATH=str(tmp_path / "machine"))
    assert "has torch 2.8.0+cu128 for its GPU; .venv builds on it" in result.stdout, result.stderr
    assert not (project / ".venv").exists()


def test_a_venv_on_the_machines_torch_keeps_it(project, tmp_path):
    """Here the machine's Python is in a venv itself, as on many rented boxes."""
    run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "machine"], tmp_path)
    put_torch(next(tmp_path.glob("machine/lib/python*/site-packages")))
    code = (
        "import sys; sys.path.insert(0, 'scripts'); import setup_env as s; s.VENV.mkdir();"
        "machine = s.find_machine_torch(); constraints = s.read('constraints.txt');"
        "plan = s.plan_torch(machine, s.read('pyproject.toml'), constraints); s.make_venv(plan);"
        "print(s.constraints_for(plan, machine, constraints))"
    )
    made = run([tmp_path / "machine/bin/python", "-c", code], project)
    assert made.returncode == 0, made.stderr
    (project / "pins.txt").write_text(made.stdout)
    python = project / ".venv/bin/python"
    assert run([python, "-c", "import torch; print(torch.__version__)"], project).stdout == (
        "2.8.0+cu128\n"
    )
    pip = [python, "-m", "pip", "install", "--no-index", "-c", "pins.txt", "torch>=2.4,<3", "sympy"]
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
