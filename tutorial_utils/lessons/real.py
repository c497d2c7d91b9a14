"""What the lessons' own cells found on a real model, stored as numbers: `make real` writes them."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any


def read_result(topic: str, kind: str = "smollm2") -> Any:
    """What the cell tagged `real` of this topic's lesson found on SmolLM2-135M-Instruct.

    Numbers, strings, lists and dicts, as they were when `make real` ran the lesson. With the kind
    "spread": a list of what `trial(seed)`, of the cell tagged `spread`, gave for five seeds on the
    shipped model.
    """
    file = resources.files("tutorial_utils.lessons") / topic / f"{kind}.json"
    return json.loads(file.read_text(encoding="utf-8"))["result"]
