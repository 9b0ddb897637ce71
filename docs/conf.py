"""Sphinx configuration: MyST pages, the API reference from docstrings, Furo."""

import re
from importlib.metadata import version as installed_version
from typing import Any

project = "DeltaRNN"
author = "The DeltaRNN developers"
release = installed_version("deltarnn")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "sphinx_gallery.gen_gallery"]
sphinx_gallery_conf = {"examples_dirs": "../examples/tutorial", "gallery_dirs": "tutorial", "show_memory": False}
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "DeltaRNN"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"

_MARKUP = re.compile(r"\||(?<=\w)_(?=\W|$)")  # |magnitude| and name_ are not meant as references
_ENTRY = re.compile(r"(?P<names>[\w.*]+(?:, [\w.*]+)*): (?P<text>.*)")


def _to_fields(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Our docstrings' underlined sections as reStructuredText fields; an indented block after a colon as it stands."""
    section, result = "", []
    for index, raw in enumerate(lines):
        line = _MARKUP.sub(r"\\\g<0>", raw)
        following = next((text for text in lines[index + 1 :] if text), "")
        if set(line.strip()) == {"-"}:
            section = result.pop().strip()
            result.append(":returns:" if section == "Returns" else "")
        elif section and not line:
            section, result = "" if section != "Returns" else section, [*result, ""]
        elif section == "Returns":
            result.append(f"    {line}")
        elif section in ("Parameters", "Attributes") and (entry := _ENTRY.fullmatch(line)):
            result += [f":param {part}: {entry['text']}" for part in entry["names"].split(", ")]
        elif section in ("Raises", "Warns") and not line.startswith(" "):
            result.append(f":raises {line}:")
        elif line.endswith(":") and following.startswith("    ") and not line.startswith(" "):
            result.append(f"{line}:")
        else:
            result.append(line)
    lines[:] = result


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", _to_fields)
