"""Settings of the site, read by Sphinx: MyST-NB and its theme are what Jupyter Book 1 is made of.

scripts/build_site.py gathers the pages in a folder and starts Sphinx there with this file.
"""

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
default_role = "code"  # docstrings write code between single backticks


def without_pythons_own(app, what, name, obj, options, lines) -> None:
    """Fields of a NamedTuple have a docstring that Python makes, and that says nothing."""
    if lines and lines[0].startswith("Alias for field number"):
        lines.clear()


def setup(app) -> None:
    app.connect("autodoc-process-docstring", without_pythons_own)
