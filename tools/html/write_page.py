"""Write data, style and code as one self-contained file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from quantfx.passes.report.compare.site_numbers import plain_numbers

_SCRIPTS = ("model.js", "layout.js", "graph.js", "details.js", "lists.js", "view.js")


def write_page(data: Mapping[str, Any], path: str | Path, *, title: str) -> Path:
    """Write the page that shows ``data`` and return its path.

    Args:
        data: Data from ``result_data`` or ``graph_data``.
        path: The file; missing folders are made.
        title: Title of the page.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page_text(data, title=title), encoding="utf-8", errors="backslashreplace")
    return path


def page_text(data: Mapping[str, Any], *, title: str) -> str:
    """Return the page that shows ``data``.

    Args:
        data: Data from ``result_data`` or ``graph_data``.
        title: Title of the page.
    """
    return Template(_read("page.html")).substitute(
        title=escape(title),
        style=_read("view.css"),
        licence=escape(_read("vendor/dagre.LICENSE").strip()),
        # Without the file name that a browser's debugger would look for beside the page.
        layout=_read("vendor/dagre.min.js").partition("//# sourceMappingURL")[0],
        data=script_text({"title": title, **data}),
        code="\n".join(map(_read, _SCRIPTS)),
    )


def script_text(data: Any) -> str:
    """Return ``data`` as JSON that is safe inside HTML: ``<`` is escaped."""
    text = json.dumps(plain_numbers(data), separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def _read(name: str) -> str:
    return (files("quantfx.tools.html") / name).read_text(encoding="utf-8")
