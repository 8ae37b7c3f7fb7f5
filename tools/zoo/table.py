"""The zoo as a page of Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from quantfx.tools.zoo.faults import (
    LEAST_DECIBELS,
    Explained,
    faults_of,
    must_be_int8,
    unexplained,
    unused,
)
from quantfx.tools.zoo.row import Row

_COLUMNS = (
    "network", "M", "sites", "macs", "float",
    "module", "compiled", "loaded", "auto", "kernels", "quantize", "compile", "auto s",
    "commit",
)  # fmt: skip
_MEANING = f"""\
Networks with seeded random weights (`tools/zoo/networks.toml`), small inputs, eight batches to
calibrate and two others to compare, each in a process of its own. Made by `make zoo`.

- **M**: million parameters. **sites**: planned / lowered / compiled. **macs**: share of the
  multiply-accumulates that is int8. **float**: convolutions, and products with weights, that stay
  float.
- **module**, **compiled**, **loaded**, **auto**: signal to noise of the worst output in dB, against
  the float network: of `result.module`, of `result.compile()`, of the module after saving and
  loading, of `quantfx.auto`. **kernels**: of the compiled module against the q/dq graph.
- **quantize**, **compile**, **auto s**: seconds; the last of both phases and all calls.
- **commit**: of quantfx, whose networks, data and code it was.

A fault is an error of any kind, less than {LEAST_DECIBELS:.0f} dB, a kernel call more than one step
from its reference, a planned site without its kernel, or a convolution, or product with a weight,
that stays float without a good reason. Each is explained below the table, or `make zoo` fails.
"""


def page(
    rows: Sequence[Row], explained: Explained, setting: str, unmeasured: Sequence[str] = ()
) -> str:
    """Return the whole page.

    Args:
        rows: One row per network.
        explained: Explanations of faults.
        setting: Machine, versions and date, in one line.
        unmeasured: Networks without a row.
    """
    failing = unexplained(rows, explained)
    faulty = [row for row in rows if faults_of(row, explained)]
    summary = (
        f"{len(rows)} networks: {len(rows) - len(faulty)} without a fault, "
        f"{len(faulty) - len(failing)} explained, {len(failing)} failing."
    )
    if unmeasured:
        summary += f" Not measured: {', '.join(unmeasured)}."
    parts = ["# The zoo", _MEANING, setting, summary, table(rows)]
    parts.extend(_section("Failing", _failures(failing)))
    parts.extend(_section("Explained", _explanations(rows, explained)))
    parts.extend(_section("What may stay float, and why", _reasons(rows, explained)))
    parts.extend(_section("Explained, but seen no more", _unused(rows, explained)))
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def table(rows: Iterable[Row]) -> str:
    """Return the rows as a table of Markdown."""
    lines = [_line(_COLUMNS), _line(("---",) + ("---:",) * (len(_COLUMNS) - 1))]
    lines.extend(_line(_cells(row)) for row in rows)
    return "\n".join(lines)


def _cells(row: Row) -> Iterator[str]:
    yield row.network
    yield f"{row.parameters / 1e6:.1f}" if row.parameters else "-"
    quantized = row.seconds("quantize") is not None
    compiled = row.compiled if row.seconds("compile") is not None else "-"
    yield f"{row.planned} / {row.lowered} / {compiled}" if quantized else "-"
    yield "-" if row.int8_macs is None else f"{row.int8_macs:.0%}"
    yield str(sum(each.count for each in row.floats if must_be_int8(each)) if quantized else "-")
    for what in ("module", "compiled", "loaded", "auto", "q/dq, compiled"):
        decibels = row.decibels.get(what)
        yield "-" if decibels is None else f"{decibels:.0f}"
    yield _seconds(row.seconds("quantize"))
    yield _seconds(row.seconds("compile"))
    yield _seconds(row.seconds("auto"))
    yield row.commit or "-"


def _seconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.1f}"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _section(title: str, lines: Iterable[str]) -> Iterator[str]:
    found = [f"- {' '.join(line.split())}" for line in lines]
    if found:
        yield f"## {title}"
        yield "\n".join(found)


def _failures(failing: dict[str, tuple[str, ...]]) -> Iterator[str]:
    for network, faults in failing.items():
        for fault in faults:
            yield f"**{network}**: {fault}"


def _explanations(rows: Iterable[Row], explained: Explained) -> Iterator[str]:
    for row in rows:
        for fault in faults_of(row, explained):
            if because := explained.of(row.network, fault):
                yield f"**{row.network}**: {fault} — {because}"


def _reasons(rows: Iterable[Row], explained: Explained) -> Iterator[str]:
    counts: dict[tuple[str, str], dict[str, int]] = {}
    for row in rows:
        for each in row.floats:
            because = explained.why_float(each) if must_be_int8(each) else ""
            if because:
                networks = counts.setdefault((each.op, because), {})
                networks[row.network] = networks.get(row.network, 0) + each.count
    for (op, because), networks in sorted(counts.items()):
        listed = ", ".join(f"{name} x{count}" for name, count in networks.items())
        yield f"`{op}`: {because} ({listed})"


def _unused(rows: Iterable[Row], explained: Explained) -> Iterator[str]:
    for each in unused(rows, explained):
        yield f"{', '.join(each.networks)}: '{each.text}'; take it out of tools/zoo/explained.toml"
