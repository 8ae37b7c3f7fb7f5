"""The line of the user's code that a node comes from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch.fx import Node

_FRAME = re.compile(
    r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>.*)\n +(?P<text>.*)'
)
# Frames of torch and quantfx are not the user's code.
_OTHERS = (Path(torch.__file__).resolve().parent, Path(__file__).resolve().parents[1])


@dataclass(frozen=True, kw_only=True)
class SourceLine:
    """A line of the user's code.

    Attributes:
        file: Path of the file.
        line: Number of the line, from 1.
        function: Function that contains the line.
        text: The line itself.
    """

    file: str
    line: int
    function: str
    text: str


def source_line(node: Node) -> SourceLine | None:
    """Return the innermost line of the user's code that ``node`` comes from; None if unknown."""
    trace = node.meta.get("stack_trace")
    return _innermost(trace) if isinstance(trace, str) else None


@lru_cache(maxsize=4096)
def _innermost(trace: str) -> SourceLine | None:
    frames = list(_FRAME.finditer(trace))
    own = [frame for frame in frames if not _is_of_others(frame["file"])]
    if not own:
        return None
    frame = own[-1]
    return SourceLine(
        file=frame["file"],
        line=int(frame["line"]),
        function=frame["function"],
        text=frame["text"].strip(),
    )


def _is_of_others(file: str) -> bool:
    """Whether a file is not the user's: torch, quantfx, or generated (``<eval_with_key>.1``)."""
    path = Path(file).resolve()
    return file.startswith("<") or any(path.is_relative_to(folder) for folder in _OTHERS)
