"""Read by pytest for every path of the project, `pytest --nbmake notebooks/` among them.

(tests/conftest.py is read only when pytest is pointed at tests/.)
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "tests"))

import notebook_tools  # noqa: E402

# Before anything imports transformers: no test asks the network, and none runs on another model
# because of a variable that the person at the keyboard has set.
os.environ.update(notebook_tools.kernel_environment())
os.environ.pop("TUTORIAL_MODEL", None)
notebook_tools.watch_nbmake()
