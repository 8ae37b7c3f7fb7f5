"""Parse oneDNN's output about each primitive that it executes.

A line, with ``ONEDNN_VERBOSE_TIMESTAMP=1`` set before oneDNN's first use, has these fields::

    onednn_verbose,v1,<start ms>,primitive,exec,<engine>,<kind>,<implementation>,<prop kind>,
    <memory descriptors>,<attributes>,<auxiliary>,<problem>,<ms>
"""

from __future__ import annotations

from dataclasses import dataclass

from quantfx.patterns.errors import QuantfxError

TIMESTAMPS = "ONEDNN_VERBOSE_TIMESTAMP"

_MARK = "onednn_verbose,v1,"
_FIELDS = 14


@dataclass(frozen=True)
class Execution:
    """One primitive that ran once.

    Attributes:
        start: Start in milliseconds since 1970.
        kind: E.g. ``convolution`` or ``matmul``.
        implementation: E.g. ``brgconv:avx512_core_amx``.
        problem: The shapes, in oneDNN's shorthand.
        milliseconds: Duration.
    """

    start: float
    kind: str
    implementation: str
    problem: str
    milliseconds: float


def parse_verbose(text: str) -> tuple[Execution, ...]:
    """Return the executions in ``text``; skip other lines.

    Raises:
        QuantfxError: a line of an execution has other fields than expected.
    """
    return tuple(_execution(line) for line in text.splitlines() if _tells_execution(line))


def _tells_execution(line: str) -> bool:
    return line.startswith(_MARK) and ",primitive,exec," in line


def _execution(line: str) -> Execution:
    fields = line.split(",")
    if len(fields) != _FIELDS or fields[3:5] != ["primitive", "exec"]:
        raise QuantfxError(
            f"cannot read this line of oneDNN's: {line!r}. Is {TIMESTAMPS}=1 set before its first "
            "use, and is the format that of oneDNN 3.x?",
            rule="unreadable-line",
            site=line,
        )
    return Execution(
        start=float(fields[2]),
        kind=fields[6],
        implementation=fields[7],
        problem=fields[12],
        milliseconds=float(fields[13]),
    )
