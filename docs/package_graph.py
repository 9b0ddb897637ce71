"""The picture of docs/architecture.md, drawn from the imports: `python docs/package_graph.py` writes it.

Packages stand on the lowest level that their imports allow: an arrow goes down to each package that one imports, unless
other arrows lead there already. The packages of keyword spotting are drawn inside it, in the same manner.
"""

import ast
from collections.abc import Iterable
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "deltarnn"
PICTURE = ROOT / "docs" / "images" / "architecture.svg"

Graph = dict[str, set[str]]
Box = tuple[float, float, float, float]
"""x, y, width, height."""

WIDTH, BOX, FLOOR, WING = 920, 46, 104, 30
STYLE = (
    "text{font:15px system-ui,sans-serif;fill:#1f2933}.small{font-size:12px;fill:#52606d}"
    "rect{fill:#f5f7fa;stroke:#7b8794;rx:6}.house{fill:#fff;stroke:#0b6e99}.wing{fill:#e6f2f7;stroke:none}"
    "path{fill:none;stroke:#7b8794;stroke-width:1.3;marker-end:url(#tip)}"
)
TIP = (
    '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<polygon points="0,0 8,4 0,8" fill="#7b8794"/></marker>'
)


def imported_modules(path: Path) -> set[str]:
    """All modules of deltarnn that a file imports, anywhere in it; of `from a import b` both could be one: a.b."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] == "deltarnn"}


def import_graph(folder: Path) -> Graph:
    """The packages of a folder, and the command line: those packages that each imports."""
    above = (SOURCE.name, *folder.relative_to(SOURCE).parts)
    packages = {path.parent.name for path in folder.glob("*/__init__.py")}
    graph: Graph = {}
    for name in [*packages, *(path.stem for path in folder.glob("cli.py"))]:
        files = [folder / f"{name}.py"] if name not in packages else sorted((folder / name).rglob("*.py"))
        parts = [found.split(".") for path in files for found in imported_modules(path)]
        targets = {p[len(above)] for p in parts if tuple(p[: len(above)]) == above and len(p) > len(above)}
        graph[name] = (targets & packages) - {name}
    return graph


def levels(graph: Graph) -> dict[str, int]:
    """0 for what imports nothing, else one more than the highest that it imports. ValueError for a circle."""
    level: dict[str, int] = {}
    while len(level) < len(graph):
        ready = {name for name, targets in graph.items() if name not in level and targets <= level.keys()}
        if not ready:
            raise ValueError(f"these import each other: {', '.join(sorted(graph.keys() - level.keys()))}")
        level |= {name: max((level[target] + 1 for target in graph[name]), default=0) for name in ready}
    return level


def reduced(graph: Graph) -> list[tuple[str, str]]:
    """The arrows that no other way replaces."""

    def below(names: Iterable[str]) -> set[str]:
        return {target for name in names for target in graph[name] | below(graph[name])}

    return sorted((name, target) for name, targets in graph.items() for target in targets - below(targets))


def draw() -> str:
    """The picture as SVG."""
    packages, wings = import_graph(SOURCE), import_graph(SOURCE / "kws")
    boxes, height = _places(levels(packages), len(wings))
    parts = [f"<style>{STYLE}</style><defs>{TIP}</defs>"]
    parts += [_arrow(boxes[start], boxes[end]) for start, end in reduced(packages)]
    for name, box in sorted(boxes.items()):
        parts.append(_rectangle(box, "house" if name == "kws" else ""))
        x, y, width, _ = box
        parts.append(f'<text x="{x + width / 2:g}" y="{y + 28:g}" text-anchor="middle">{escape(name)}</text>')
    parts.append(_inside(boxes["kws"], wings))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" role="img">'
    return "\n".join([head, "<title>Which package imports which</title>", *parts, "</svg>", ""])


def _places(level: dict[str, int], wings: int) -> tuple[dict[str, Box], float]:
    """Where each package stands, and the height of the whole."""
    boxes: dict[str, Box] = {}
    y = 12.0
    for floor in sorted(set(level.values()), reverse=True):
        names = sorted(name for name, own in level.items() if own == floor and name != "kws")
        names[len(names) // 2 : len(names) // 2] = ["kws"] if level["kws"] == floor else []
        sizes = [(520.0, BOX + 12.0 + WING * wings) if name == "kws" else (130.0, float(BOX)) for name in names]
        gap = (WIDTH - sum(width for width, _ in sizes)) / (len(names) + 1)
        x, highest = gap, max(height for _, height in sizes)
        for name, (width, height) in zip(names, sizes, strict=True):
            boxes[name] = (
                x,
                y + highest - height,
                width,
                height,
            )  # at the bottom, where arrows begin
            x += width + gap
        y += highest + FLOOR - BOX
    return boxes, y - (FLOOR - BOX) + 12


def _inside(house: Box, wings: Graph) -> str:
    """The packages of `kws` as rows, from the top down, with their arrows at the side."""
    level = levels(wings)
    x, top, width, _ = house
    row = {name: top + BOX + WING * place for place, name in enumerate(sorted(wings, key=lambda n: (-level[n], n)))}
    parts = []
    for name, y in row.items():
        parts.append(_rectangle((x + 14, y, width - 170, WING - 6), "wing"))
        parts.append(f'<text class="small" x="{x + 26:g}" y="{y + 16:g}">{escape(name)}</text>')
    right = x + 14 + width - 170
    for start, end in reduced(wings):
        y, z = row[start] + WING / 2 - 3, row[end] + WING / 2 - 3
        bulge = right + 16 + 0.45 * (z - y)
        parts.append(f'<path d="M{right:g} {y:g} C{bulge:g} {y:g} {bulge:g} {z:g} {right:g} {z:g}"/>')
    return "\n".join(parts)


def _rectangle(box: Box, kind: str) -> str:
    x, y, width, height = box
    return f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"/>'


def _arrow(start: Box, end: Box) -> str:
    x, y = start[0] + start[2] / 2, start[1] + start[3]
    z, w = end[0] + end[2] / 2, end[1]
    middle = (y + w) / 2
    return f'<path d="M{x:g} {y:g} C{x:g} {middle:g} {z:g} {middle:g} {z:g} {w:g}"/>'


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
    print(PICTURE.relative_to(ROOT))
