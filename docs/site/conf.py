"""Settings of the site, read by Sphinx: MyST-NB and its theme are what Jupyter Book 1 is made of.

scripts/build_site.py gathers the pages in a folder and starts Sphinx there with this file.
"""

import inspect
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

project = "Reading the inside of a language model"
author = "The tutorial_utils contributors"
copyright = "2026, the tutorial_utils contributors. Code: MIT. Text and figures: CC BY 4.0"
html_title = project
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]

# The notebooks hold their outputs: nothing is run here.
nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "html_image"]
myst_heading_anchors = 3

smartquotes = False  # " Paris" in a text is the string that the code holds

html_theme = "sphinx_book_theme"
html_theme_options = {
    "home_page_in_toc": True,
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "use_download_button": False,
}
html_context = {"default_mode": "auto"}  # or the theme logs an error in each browser
html_static_path = [str(ROOT / "build" / "site-source" / "_static")]
html_css_files = ["site.css"]
html_copy_source = html_show_sourcelink = html_show_sphinx = False

# MathJax from the site itself, drawn as SVG: one file, no fonts beside it.
mathjax_path = "tex-svg.js"

# The package's docstrings, read without torch and the rest.
autodoc_mock_imports = ["torch", "transformers", "numpy", "matplotlib", "ipywidgets", "IPython"]
autodoc_mock_imports += ["accelerate", "safetensors", "tokenizers", "huggingface_hub", "tqdm"]
add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # fields of a class as a list, beside autodoc's own entries
default_role = "code"  # docstrings write code between single backticks


def as_rst(app, what, name, obj, options, lines) -> None:
    """The docstrings' plain layout, spelt as Sphinx needs it: arguments, and indented code."""
    try:
        arguments = set(inspect.signature(obj).parameters)
    except (TypeError, ValueError):
        arguments = set()
    new: list[str] = []
    if lines and lines[0].startswith("Alias for field number"):  # Python's, not ours
        lines.clear()
    for line in lines:
        argument = re.match(r"(\w+): (\S.*)", line)
        before = next((old for old in reversed(new) if old), "")
        if argument and argument[1] in arguments:
            new += ["", f":param {argument[1]}: {argument[2]}"]
        elif line.startswith("    ") and not new[-1] and not before.startswith("    "):
            new += ["::", "", line]
        else:
            ends_list = before.startswith((":param", "    ")) and line[:1] not in ("", " ")
            new += ["", line] if ends_list and new[-1] else [line]
    lines[:] = new


def setup(app) -> None:
    app.connect("autodoc-process-docstring", as_rst, priority=400)  # before napoleon, at 500
