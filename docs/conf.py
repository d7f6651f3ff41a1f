"""Sphinx: pages in Markdown through MyST, the API from the docstrings. Builds without a network and fetches nothing in the reader's browser."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import fastconv  # noqa: E402

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
