"""Sphinx: pages in Markdown through MyST, the API from the docstrings. Nothing is fetched, neither to build nor to read."""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import fastconv

project = "fastconv"
author = "The fastconv developers"
project_copyright = f"2026, {author}"
release = version = fastconv.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3

default_role = "any"  # `conv2d` in a docstring links to it
suppress_warnings = ["ref.any"]  # ... and what is in backticks but no name of the API (`groups`) is only set in italics
napoleon_google_docstring = False
napoleon_use_rtype = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_default_options = {"members": True, "show-inheritance": True}

html_theme = "furo"
html_title = f"fastconv {release}"
html_static_path = []
html_show_sphinx = False


def keep_initials(app, what, name, obj, options, lines):
    """An author's initial that begins a line is no number of a list, which "V. Dumoulin" would be: the fifth."""
    lines[:] = [re.sub(r"^(\s*[A-Z])\. ", r"\1\\. ", line) for line in lines]


def setup(app):
    app.connect("autodoc-process-docstring", keep_initials)
