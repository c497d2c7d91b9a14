"""What the lessons' own cells found on a real model, stored as numbers: `make real` writes them."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any


def read_result(topic: str) -> dict[str, Any]:
    """What the cell tagged `real` of this topic's lesson found on SmolLM2-135M-Instruct.

    Numbers, strings, lists and dicts, as they were when `make real` ran the lesson.
    """
    file = resources.files("tutorial_utils.lessons") / topic / "smollm2.json"
    return json.loads(file.read_text(encoding="utf-8"))["result"]
