"""What the tests ask a lesson's kernel: what has piled up, and does each control work.

Imported inside the kernel, not by pytest.
"""

from __future__ import annotations

import functools
import sys
import traceback
from typing import Any

# Hooks that these packages register on their own account stay; a lesson's own must not.
LIBRARIES = ("torch", "transformers", "accelerate")
MOST_OPTIONS = 12


def fingerprint() -> dict[str, str]:
    """Each variable of the lesson in a form that changes when something is added to it."""
    variables = vars(sys.modules["__main__"])
    marks = {
        name: _mark(value)
        for name, value in list(variables.items())
        if not name.startswith("_") and name not in ("In", "Out", "exit", "quit", "get_ipython")
    }
    if "matplotlib.pyplot" in sys.modules:
        marks["open figures"] = str(len(sys.modules["matplotlib.pyplot"].get_fignums()))
    return marks


def _mark(value: Any) -> str:
    torch = sys.modules.get("torch")
    if torch and isinstance(value, torch.nn.Module):
        total = sum(_add_up(parameter) for parameter in value.parameters())
        return f"{type(value).__name__}, {len(_hooks(value))} hooks, weights adding up to {total}"
    if torch and isinstance(value, torch.Tensor):
        return f"tensor of shape {tuple(value.shape)} adding up to {_add_up(value)}"
    if isinstance(value, (bool, int, float, str)):
        return repr(value)
    if isinstance(value, (list, tuple, dict, set)):
        return f"{type(value).__name__} of length {len(value)}"
    return type(value).__name__


def _add_up(tensor: Any) -> float:
    if tensor.is_meta or tensor.is_complex():
        return 0.0
    return tensor.detach().double().nan_to_num().sum().item()


def _hooks(model: Any) -> list[Any]:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [
        hook
        for module in model.modules()
        for kind in kinds
        for hook in getattr(module, kind).values()
    ]


def own_hooks() -> list[str]:
    """The hooks left on models of the lesson that no library registered, by function name."""
    torch = sys.modules.get("torch")
    if not torch:
        return []
    models = {
        id(value): value
        for value in vars(sys.modules["__main__"]).values()
        if isinstance(value, torch.nn.Module)
    }
    names = []
    for hook in (hook for model in models.values() for hook in _hooks(model)):
        while isinstance(hook, functools.partial):
            hook = hook.func
        source = getattr(hook, "__module__", None) or type(hook).__module__
        if source.split(".")[0] not in LIBRARIES:
            names.append(getattr(hook, "__qualname__", repr(hook)))
    return names


def gpu_bytes() -> int:
    """The most that was allocated on CUDA GPUs since the kernel began."""
    torch = sys.modules.get("torch")
    if not torch or not torch.cuda.is_available():
        return 0
    return sum(map(torch.cuda.max_memory_allocated, range(torch.cuda.device_count())))


def move_controls() -> int:
    """Moves every control to its ends and through its options; gives how often that was.

    An error in a callback shows where a reader would see it, or is printed to stderr here.
    """
    if "ipywidgets" not in sys.modules:
        return 0
    from ipywidgets.widgets import widget

    made = getattr(widget, "_instances", None)  # ipywidgets 8; what 7 has warns there
    moves = 0
    for control in list((widget.Widget.widgets if made is None else made).values()):
        for move in _moves(control):
            moves += 1
            try:
                move()
            except Exception:
                print(f"{type(control).__name__} was moved and raised:", file=sys.stderr)
                traceback.print_exc()
    return moves


def _moves(control: Any) -> list[Any]:
    if getattr(control, "disabled", False):
        return []
    if hasattr(control, "click"):
        return [control.click]
    if "value" not in control.traits() or hasattr(control, "bar_style"):  # a progress bar
        return []
    start = control.value
    if hasattr(control, "index") and hasattr(control, "options"):
        places, last = list(range(len(control.options)))[:MOST_OPTIONS], len(control.options) - 1
        values = places
        if type(control).__name__ == "SelectionRangeSlider":
            values = [(0, 0), (0, last), (last, last)]
        elif isinstance(control.index, tuple):
            values = [(place,) for place in places]
        values = [*values, control.index]
        return [functools.partial(setattr, control, "index", value) for value in values]
    if isinstance(start, bool):
        values = [not start, start]
    elif isinstance(start, str) and type(control).__name__ in ("Text", "Textarea", "Combobox"):
        values = ["", "x", start]
    elif hasattr(control, "min") and hasattr(control, "max"):
        low, high = control.min, control.max
        values = [(low, high), start] if isinstance(start, tuple) else [low, high, start]
    else:
        return []
    return [functools.partial(setattr, control, "value", value) for value in values]
