"""A page that is made while the documentation is built, and its drawings."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from graphviz.backend import DOT_BINARY

ROOT = Path(__file__).parents[2]
# Points: up to this width a drawing can still be read where a narrow screen makes it fit.
_SMALL = 400


@dataclass(frozen=True)
class Page:
    """A page.

    Attributes:
        uri: Where it is, e.g. ``catalog/passes.md``.
        title: Its first line, and what the navigation calls it.
        text: What is below the title, as Markdown.
        drawings: Address -> SVG.
    """

    uri: str
    title: str
    text: str
    drawings: dict[str, str] = field(default_factory=dict[str, str])


def fence(text: str, language: str = "text") -> str:
    """Return a block of code; its own fences stay inside."""
    return f"````{language}\n{text.rstrip()}\n````\n"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table."""
    cells = list(head)
    lines = [cells, ["---"] * len(cells), *map(list, rows)]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", "<br>")


def drawn(dot: str, name: str, uri: str, drawings: dict[str, str]) -> Iterator[str]:
    """Yield the drawing of DOT text as Markdown, or the text itself where `dot` is not installed.

    Args:
        dot: What to draw.
        name: Of the file, without its ending.
        uri: Of the page.
        drawings: Where the SVG is put.
    """
    svg = _svg(dot)
    if svg is None:
        yield f'??? note "The drawing as text (`dot` was not installed)"\n\n{_indent(fence(dot))}'
        return
    folder = uri.removesuffix(".md")
    drawings[f"{folder}/{name}.svg"] = svg
    source = f"{folder.rpartition('/')[2]}/{name}.svg"
    kind = "drawing small" if _width(svg) <= _SMALL else "drawing"
    yield f'<div class="{kind}" markdown>\n![{name}]({source}){{ loading=lazy }}\n</div>\n'


def _width(svg: str) -> float:
    found = re.search(r'<svg width="([\d.]+)pt"', svg)
    return float(found[1]) if found else 0.0


@cache
def _svg(dot: str) -> str | None:
    try:
        done = subprocess.run([DOT_BINARY, "-Tsvg"], input=dot, text=True, capture_output=True)
    except FileNotFoundError:
        return None
    return done.stdout


def _indent(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines())
