"""The frame of the report pages: an HTML document with its style inside, tiles of figures, sections side by side."""

from collections.abc import Sequence
from importlib.resources import files


def asset(name: str) -> str:
    """A text file of this package: page.css, timeline.js."""
    return files("deltarnn.kws.report").joinpath(name).read_text(encoding="utf-8")


def document(title: str, heading: str, lead: str, content: str, script: str = "") -> str:
    """The whole page. title, heading: plain text; lead, content: HTML; script: JavaScript that runs at the end."""
    run = f"<script>{script}</script>" if script else ""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title>'
        f'<style>{asset("page.css")}</style><main><h1>{heading}</h1><p class="lead">{lead}</p>{content}</main>{run}'
        "</html>\n"
    )


def tiles(values: Sequence[tuple[str, str]]) -> str:
    """Figures, each with what it is."""
    return f'<div class="tiles">{"".join(f"<div class=tile><b>{v}</b><span>{t}</span></div>" for v, t in values)}</div>'


def pair(*sections: str) -> str:
    """Side by side where the page is wide."""
    return f'<div class="pair">{"".join(sections)}</div>'
