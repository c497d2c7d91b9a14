"""An explorer without a browser: its controls by their names, and what it shows."""

from __future__ import annotations

import ipywidgets as widgets


def inside(widget: widgets.Widget) -> list[widgets.Widget]:
    """The widget and all that stands in it, from top to bottom."""
    children = getattr(widget, "children", ())
    return [widget, *(found for child in children for found in inside(child))]


def find(widget: widgets.Widget, description: str) -> widgets.Widget:
    """The one control of that name."""
    (found,) = [w for w in inside(widget) if getattr(w, "description", None) == description]
    return found


def shown(widget: widgets.Widget) -> str:
    """The HTML that can be seen."""
    if widget.layout.visibility == "hidden":
        return ""
    if isinstance(widget, widgets.HTML):
        return widget.value
    return "\n".join(shown(child) for child in getattr(widget, "children", ()))
