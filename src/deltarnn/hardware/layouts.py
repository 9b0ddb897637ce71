"""How an exported C library lies in its folder: plain files, an Arduino library, or a Zephyr module."""

from collections.abc import Callable
from importlib.resources import files
from string import Template
from typing import Literal, get_args

import deltarnn

Layout = Literal["plain", "arduino", "zephyr"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)


def arranged(texts: dict[str, str], name: str, layout: Layout) -> dict[str, str]:
    """Texts by path in the folder, of a library's files by name; with what the layout adds to them."""
    return _ARRANGE[layout](texts, name)


def _plain(texts: dict[str, str], name: str) -> dict[str, str]:
    return texts


def _arduino(texts: dict[str, str], name: str) -> dict[str, str]:
    return {
        "library.properties": _filled("library.properties", name),
        f"src/{name}.h": texts[f"{name}.h"],
        f"src/{name}.c": texts[f"{name}.c"],
        "examples/listen/listen.ino": _filled("listen.ino", name),
    }


def _zephyr(texts: dict[str, str], name: str) -> dict[str, str]:
    return {
        "zephyr/module.yml": _filled("module.yml", name),
        "zephyr/CMakeLists.txt": _filled("zephyr.cmake", name),
        "zephyr/Kconfig": _filled("Kconfig", name),
        f"include/{name}.h": texts[f"{name}.h"],
        f"src/{name}.c": texts[f"{name}.c"],
        "samples/self_test/CMakeLists.txt": _filled("self_test.cmake", name),
        "samples/self_test/prj.conf": _filled("prj.conf", name),
        "samples/self_test/src/main.c": texts[f"{name}_push_test.c"],
    }


_ARRANGE: dict[Layout, Callable[[dict[str, str], str], dict[str, str]]] = {
    "plain": _plain, "arduino": _arduino, "zephyr": _zephyr,
}  # fmt: skip


def _filled(template: str, name: str) -> str:
    text = files("deltarnn.hardware").joinpath("layouts", template).read_text(encoding="utf-8")
    # Arduino's versions have three numbers and nothing after them.
    version = ".".join([*deltarnn.__version__.split(".")[:3], "0", "0"][:3])
    number = "".join(c for c in version if c.isdigit() or c == ".")
    return Template(text).substitute(name=name, NAME=name.upper(), version=number)
