"""Sphinx configuration: MyST pages, the API reference from docstrings, Furo."""

from importlib.metadata import version as installed_version

project = "DeltaRNN"
author = "The DeltaRNN developers"
release = installed_version("deltarnn")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "DeltaRNN"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = False
suppress_warnings = ["myst.header"]
