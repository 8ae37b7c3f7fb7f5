"""Render DOT text into a picture file with Graphviz, or say why not."""

from __future__ import annotations

import math
import subprocess
from pathlib import Path

from graphviz.backend import DOT_BINARY

from quantfx.patterns.errors import QuantfxError, warn

# Beyond this many pixels per side, dot shrinks bitmaps until unreadable, and exits with 0.
PNG_LIMIT = 32767
_PNG_PIXELS_PER_INCH = 96
# Padding that dot adds around what `-Tplain` measures.
_PAD_INCHES = 0.5
_FORMATS = (".dot", ".svg", ".png")


def render(dot_text: str, path: str | Path, *, timeout: float = 60) -> Path:
    """Write the drawing to ``path``; its suffix ``.dot``, ``.svg`` or ``.png`` is the format.

    Without Graphviz's ``dot`` program the text goes to ``<path>.dot``, with a warning.

    Args:
        dot_text: The drawing as DOT text.
        path: The file; missing folders are made.
        timeout: Seconds that ``dot`` may take.

    Returns:
        The file that was written.

    Raises:
        QuantfxError: the suffix is none of the three, the bitmap would be too large to read,
            or ``dot`` fails or takes too long.
    """
    path = Path(path)
    if path.suffix not in _FORMATS:
        message = f"'{path}' does not end with {', '.join(_FORMATS)}"
        raise QuantfxError(message, rule="file-ending", site=str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".dot":
        return _write_text(dot_text, path)
    try:
        if path.suffix == ".png":
            _require_fit(dot_text, timeout)
        picture = _dot(path.suffix[1:], dot_text, timeout)
    except FileNotFoundError:
        return _without_graphviz(dot_text, path)
    path.write_bytes(picture)
    return path


def _dot(output_format: str, dot_text: str, timeout: float) -> bytes:
    """Run ``dot``; not through ``graphviz.Source.pipe``, which takes no timeout."""
    try:
        done = subprocess.run(
            [DOT_BINARY, f"-T{output_format}"],
            input=dot_text.encode(),
            capture_output=True,
            timeout=timeout,
            check=True,
        )
    except subprocess.TimeoutExpired as error:
        message = f"dot took longer than {timeout:g} s"
        fix = "draw less with depth=... or around=..., or write .dot"
        raise QuantfxError(message, rule="drawing-size", fix=fix) from error
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode(errors="replace").strip()
        raise QuantfxError(f"dot cannot draw this text: {reason}", rule="drawing-text") from error
    return done.stdout


def _require_fit(dot_text: str, timeout: float) -> None:
    # `-Tplain` starts with the line "graph <scale> <width> <height>", in inches.
    _, _, width, height, *_ = _dot("plain", dot_text, timeout).split(maxsplit=4)
    size = [math.ceil((float(s) + _PAD_INCHES) * _PNG_PIXELS_PER_INCH) for s in (width, height)]
    if max(size) > PNG_LIMIT:
        raise QuantfxError(
            f"a PNG of this graph needs {size[0]} x {size[1]} pixels and can have at "
            f"most {PNG_LIMIT} a side",
            rule="drawing-size",
            fix="write .svg, or draw less with depth=... or around=...",
        )


def _without_graphviz(dot_text: str, path: Path) -> Path:
    # The suffix is added, not replaced: `model.dot` may be another drawing.
    text_path = _write_text(dot_text, path.with_name(f"{path.name}.dot"))
    warn(
        f"Graphviz's program `dot` is not installed: the text of the drawing is in {text_path}.",
        rule="missing-program",
        site="dot",
        fix=(
            "install it (`apt install graphviz`, `brew install graphviz`, `conda install "
            "graphviz`, or https://graphviz.org/download) and run: dot "
            f"-T{path.suffix[1:]} {text_path} -o {path}"
        ),
        stacklevel=3,
    )
    return text_path


def _write_text(dot_text: str, path: Path) -> Path:
    path.write_text(dot_text, encoding="utf-8")
    return path
