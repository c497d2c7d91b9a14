"""The check of `make lint` that finds uses of another module's private names."""

from __future__ import annotations

import pytest

from check_private_names import private_names


@pytest.mark.parametrize(
    "code",
    [
        "from tutorial_utils.lens import _rows",
        "from tutorial_utils import lens\nlens._rows(1)",
        "from tutorial_utils import lens as x\nprint(x._rows)",
        "import tutorial_utils.lens\ntutorial_utils.lens._rows()",
        "import tutorial_utils.lens as x\nx._rows()",
        "def f():\n    from tutorial_utils.lens import _rows",
        "from tutorial_utils.recorder import Recorder\nRecorder._add(1)",
    ],
)
def test_a_private_name_of_another_module_is_found(code):
    (found,) = private_names(code)
    assert found.split(": ")[1] in ("_rows", "_add")
    assert int(found.split(":")[0]) == code.count("\n") + 1


@pytest.mark.parametrize(
    "code",
    [
        "from tutorial_utils.lens import rows",
        "from tutorial_utils import __version__",
        "def _rows(): ...\n_rows()",
        "class A:\n    def f(self):\n        return self._x",
        "import torch\ntorch._C",
    ],
)
def test_all_else_is_left_alone(code):
    assert private_names(code) == []
