"""An explorer without a browser: its controls by their names, and what it shows."""

from __future__ import annotations

import ast
import re
from html import unescape
from xml.etree import ElementTree

import ipywidgets as widgets


def parse(html: str) -> ElementTree.Element:
    """Fails where a tag is left open or a text is not escaped."""
    return ElementTree.fromstring(f"<div>{html}</div>")


def words(element: ElementTree.Element) -> list[str]:
    return [text for text in element.itertext() if text.strip()]


def rows_of(html: str) -> list[list[str]]:
    """The words of all tables' bodies, row by row."""
    return [words(row) for row in parse(html).findall(".//tbody/tr")]


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


def run_code(explorer: widgets.Widget, **names: object) -> tuple:
    """What the code gives that the explorer shows: the variables, and its last expression."""
    button = find(explorer, "Show the code")
    button.value = True
    (text,) = re.findall("<pre .*?>(.*?)</pre>", shown(explorer), re.S)
    *steps, last = ast.parse(unescape(text)).body
    variables = dict(names)
    exec(compile(ast.Module(steps, []), "shown code", "exec"), variables)
    result = eval(compile(ast.Expression(last.value), "shown code", "eval"), variables)
    button.value = False
    return variables, result
