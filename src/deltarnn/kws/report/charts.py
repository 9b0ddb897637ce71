"""Charts as SVG text, in the colours of the page they stand in (CSS variables)."""

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating] | NDArray[np.bool_]

NARROW, WIDE = 400.0, 1000.0
"""Widths of a chart in half a page or on a telephone, and across a whole page; text is 12 units high in both."""
BAR = 25.0
"""Height of a bar with its distance to the next."""


@dataclass(frozen=True)
class Series:
    """A line or a cloud of points: x and y values, a CSS colour, a name for the legend."""

    x: Sequence[float]
    y: Sequence[float]
    colour: str
    name: str = ""
    line: bool = True
    dots: bool = False


@dataclass(frozen=True)
class Frame:
    """The plotting area inside an SVG of width × height, and the ranges of its axes."""

    width: float
    height: float
    x: tuple[float, float]
    y: tuple[float, float]
    left: float = 66
    right: float = 16
    top: float = 12
    bottom: float = 40

    def px(self, value: float) -> float:
        """Horizontal position of an x value."""
        low, high = self.x
        return self.left + (value - low) / ((high - low) or 1) * (self.width - self.left - self.right)

    def py(self, value: float) -> float:
        """Vertical position of a y value."""
        low, high = self.y
        return self.height - self.bottom - (value - low) / ((high - low) or 1) * (self.height - self.top - self.bottom)


@dataclass(frozen=True)
class Mark:
    """One point that stands out: a ring, or a diamond; its x and y, a name for the legend, a text beside it."""

    x: float
    y: float
    name: str
    text: str = ""
    diamond: bool = False


def at_both_widths(draw: Callable[[float], str]) -> str:
    """What `draw(width)` gives for a whole page and for a telephone: the page's style shows the one that fits."""
    return f'<div class="wide">{draw(WIDE)}</div><div class="narrow">{draw(NARROW)}</div>'


def line_chart(
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    *,
    x_text: Callable[[float], str] = "{:g}".format,
    marks: Sequence[Mark] = (),
    width: float = NARROW,
    height: float = 270,
) -> str:
    """Lines over a light grid, a legend above; `marks` stand out."""
    xs = [value for s in series for value in s.x] + [mark.x for mark in marks]
    ys = [value for s in series for value in s.y] + [mark.y for mark in marks]
    x_ticks, y_ticks = ticks(min(xs), max(xs)), ticks(min(ys), max(ys))
    legend, top = _legend(series, marks, width)
    frame = Frame(width, height, (x_ticks[0], x_ticks[-1]), (y_ticks[0], y_ticks[-1]), top=top)
    whole = all(math.isclose(100 * tick, round(100 * tick), abs_tol=1e-6) for tick in y_ticks)
    y_text = "{:.0%}".format if whole else "{:.1%}".format
    parts = [_axes(frame, x_ticks, y_ticks, x_text, y_text, x_label, y_label), legend]
    for s in series:
        points = " ".join(f"{frame.px(a):.1f},{frame.py(b):.1f}" for a, b in zip(s.x, s.y, strict=True))
        if s.line:
            parts.append(f'<polyline points="{points}" fill="none" stroke="{s.colour}" stroke-width="2"/>')
        if s.dots:
            parts += [
                f'<circle cx="{frame.px(a):.1f}" cy="{frame.py(b):.1f}" r="3.4" fill="{s.colour}"/>'
                for a, b in zip(s.x, s.y, strict=True)
            ]
    for mark in marks:
        x, y = frame.px(mark.x), frame.py(mark.y)
        parts.append(_diamond(x, y, 6) if mark.diamond else _ring(x, y, 8))
        if mark.text:
            anchor, offset = ("end", -12) if x > frame.width * 0.6 else ("start", 12)
            parts.append(
                f'<text class="strong" x="{x + offset:.1f}" y="{y + 18:.1f}" text-anchor="{anchor}">'
                f"{html.escape(mark.text)}</text>"
            )
    return _svg(width, height, parts)


def spectrogram(levels: Array, seconds: float, width: float = WIDE, height: float = 150) -> str:
    """Levels (T, F) as tinted cells, low frequencies at the bottom, time below."""
    frame = Frame(width, height, (0, seconds), (0, levels.shape[1]), bottom=8)
    low, high = np.percentile(levels, 2), np.percentile(levels, 99.5)
    shade = np.clip((levels - low) / ((high - low) or 1), 0, 1)
    cells = _cells(frame, shade.T, "var(--blue)", rows_up=True)
    return _svg(width, height, [cells, _side_label(frame, "features")])


def raster(fired: Array, colour: str, label: str, seconds: float, width: float = WIDE, height: float = 110,
           time_axis: bool = False) -> str:  # fmt: skip
    """Events (T, N) as marks, one row per unit."""
    frame = Frame(width, height, (0, seconds), (0, fired.shape[1]), bottom=34 if time_axis else 8)
    parts = [
        f'<rect x="{frame.left}" y="{frame.top}" width="{width - frame.left - frame.right:.1f}" '
        f'height="{height - frame.top - frame.bottom:.1f}" fill="none" class="axis"/>',
        _cells(frame, fired.T.astype(np.float64), colour, rows_up=True),
        _side_label(frame, label),
    ]
    if time_axis:
        parts += [
            f'<text x="{frame.px(t):.1f}" y="{height - 16:.1f}" text-anchor="middle">{t:g} s</text>'
            for t in ticks(0, seconds)
            if t <= seconds
        ]
    return _svg(width, height, parts)


def confusion(labels: Sequence[str], counts: Sequence[Sequence[int]], width: float = NARROW) -> str:
    """Rows are classes, columns decisions; each row shaded by its own shares."""
    left, top = 84.0, 66.0
    cell = (width - left - 8) / len(labels)
    row_height = _row_height(len(labels), width)
    parts = []
    for i, row in enumerate(counts):
        total = sum(row) or 1
        y = top + i * row_height
        parts.append(
            f'<text x="{left - 8}" y="{y + row_height * 0.5 + 4:.1f}" text-anchor="end">{html.escape(labels[i])}</text>'
        )
        for j, count in enumerate(row):
            share = count / total
            x = left + j * cell
            colour = "var(--blue)" if i == j else "var(--red)"
            opacity = 0.08 + 0.85 * share if count else 0.0
            parts.append(
                f'<rect x="{x + 1:.1f}" y="{y + 1:.1f}" width="{cell - 2:.1f}" height="{row_height - 2:.1f}" rx="3" '
                f'fill="{colour}" opacity="{min(1, opacity * (1 if i == j else 2.5)):.2f}"/>'
            )
            if count:
                fill = ' style="fill:#fff"' if i == j and share > 0.5 else ' class="strong"'
                at = f'x="{x + cell / 2:.1f}" y="{y + row_height * 0.5 + 4:.1f}"'
                parts.append(f'<text {at} text-anchor="middle"{fill}>{count}</text>')
    for j, label in enumerate(labels):
        x = left + (j + 0.5) * cell
        parts.append(
            f'<text x="{x:.1f}" y="{top - 8}" text-anchor="start" transform="rotate(-40 {x:.1f} {top - 8})">'
            f"{html.escape(label)}</text>"
        )
    return _svg(width, confusion_height(len(labels), width), parts)


def confusion_height(classes: int, width: float = NARROW) -> float:
    """Height of a confusion matrix, for a chart beside it to be as high."""
    return 66.0 + classes * _row_height(classes, width) + 6


def _row_height(classes: int, width: float) -> float:
    return max(20.0, min(36.0, (width - 92) / classes * 0.82))


def bars(shares: dict[str, float], colour: str, width: float = NARROW) -> str:
    """A horizontal bar for each name, 0 to 100 %."""
    left, row = 84.0, BAR
    parts = []
    for index, (name, share) in enumerate(shares.items()):
        y = 6 + index * row
        length = (width - left - 60) * share
        parts.append(
            f'<text x="{left - 8}" y="{y + 14}" text-anchor="end">{html.escape(name)}</text>'
            f'<rect x="{left}" y="{y + 2}" width="{width - left - 60:.1f}" height="16" rx="3" fill="{colour}" '
            f'opacity="0.12"/><rect x="{left}" y="{y + 2}" width="{length:.1f}" height="16" rx="3" fill="{colour}"/>'
            f'<text class="strong" x="{width - 52}" y="{y + 14}">{share:.1%}</text>'
        )
    return _svg(width, bars_height(len(shares)), parts)


def bars_height(count: int) -> float:
    """Height of that many bars, for a chart beside them to be as high."""
    return 12 + BAR * count


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from at most `low` to at least `high`, about `count` of them."""
    if high <= low:
        high = low + 1
    rough = (high - low) / count
    magnitude = 10.0 ** np.floor(np.log10(rough))
    step = min((m * magnitude for m in (1, 2, 2.5, 5, 10)), key=lambda s: abs(s - rough))
    first, last = np.floor(low / step + 1e-9), np.ceil(high / step - 1e-9)
    return [float(round(i * step, 10)) for i in np.arange(first, last + 1)]


def _legend(series: Sequence[Series], marks: Sequence[Mark], width: float) -> tuple[str, float]:
    """The names of what is drawn, in as many rows as they need; and where the plot begins below them."""
    entries = [(s.name, f'<circle cx="5" cy="-4" r="4" fill="{s.colour}"/>') for s in series if s.name]
    entries += [(mark.name, _diamond(5, -4, 5) if mark.diamond else _ring(5, -4, 4.5)) for mark in marks]
    left, baseline, parts = 12.0, 16.0, []
    for name, sign in entries:
        needed = 30 + 6.4 * len(name)
        if left + needed > width and left > 12.0:
            left, baseline = 12.0, baseline + 18
        parts.append(
            f'<g transform="translate({left:.1f} {baseline:g})">{sign}<text x="14" y="0">{html.escape(name)}</text></g>'
        )
        left += needed
    return "".join(parts), baseline + 16 if entries else 12.0


def _ring(x: float, y: float, radius: float) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" fill="none" stroke="var(--red)" stroke-width="2"/>'


def _diamond(x: float, y: float, radius: float) -> str:
    corners = ((0, -radius), (radius, 0), (0, radius), (-radius, 0))
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
    return f'<polygon points="{points}" fill="var(--warm)" stroke="var(--card)" stroke-width="1.5"/>'


def _axes(
    frame: Frame, x_ticks: list[float], y_ticks: list[float], x_text: Callable[[float], str],
    y_text: Callable[[float], str], x_label: str, y_label: str,
) -> str:  # fmt: skip
    parts = []
    for tick in y_ticks:
        y = frame.py(tick)
        parts.append(
            f'<line class="axis" x1="{frame.left}" x2="{frame.width - frame.right}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{frame.left - 8}" y="{y + 4:.1f}" text-anchor="end">{y_text(tick)}</text>'
        )
    base = frame.height - frame.bottom
    parts += [
        f'<text x="{frame.px(tick):.1f}" y="{base + 16:.1f}" text-anchor="middle">{x_text(tick)}</text>'
        for tick in x_ticks
    ]
    middle = (frame.left + frame.width - frame.right) / 2
    parts.append(f'<text x="{middle:.1f}" y="{frame.height - 6}" text-anchor="middle">{html.escape(x_label)}</text>')
    centre = (frame.top + base) / 2
    parts.append(
        f'<text x="9" y="{centre:.1f}" text-anchor="middle" transform="rotate(-90 9 {centre:.1f})">'
        f"{html.escape(y_label)}</text>"
    )
    return "".join(parts)


def _cells(frame: Frame, shade: NDArray[np.floating], colour: str, rows_up: bool) -> str:
    """Cells (rows, columns) with opacity `shade`; empty ones are left out."""
    rows, columns = shade.shape
    width = (frame.width - frame.left - frame.right) / columns
    height = (frame.height - frame.top - frame.bottom) / rows
    parts = []
    for row in range(rows):
        y = frame.top + ((rows - 1 - row) if rows_up else row) * height
        for column in np.flatnonzero(shade[row] > 0.02):
            x = frame.left + column * width
            parts.append(
                f'<rect x="{x:.1f}" y="{y:.2f}" width="{width * 0.96:.2f}" height="{max(height * 0.92, 0.6):.2f}" '
                f'opacity="{shade[row, column]:.2f}"/>'
            )
    return f'<g fill="{colour}">{"".join(parts)}</g>'


def _side_label(frame: Frame, text: str) -> str:
    centre = (frame.top + frame.height - frame.bottom) / 2
    return (
        f'<text x="30" y="{centre:.1f}" text-anchor="middle" transform="rotate(-90 30 {centre:.1f})">'
        f"{html.escape(text)}</text>"
    )


def _svg(width: float, height: float, parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {width:g} {height:g}" role="img">{"".join(parts)}</svg>'
