"""``quantfx backends native``: the outcome of every row of torch's native BackendConfig."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from rich.table import Table

from quantfx.backends.quantized.engines import ENGINES, engines_of
from quantfx.backends.quantized.patterns import pattern_set
from quantfx.backends.quantized.rows import NativeRow, NativeVariant, Outcome
from quantfx.patterns.template import Template


def native_table(variant: NativeVariant) -> Table:
    """Return one line for each row and dtype config, with totals in the title."""
    patterns = pattern_set(variant)
    lines = [(row, outcome) for row in variant.rows for outcome in row.outcomes(patterns)]
    counts = Counter(outcome.status for _, outcome in lines)
    totals = ", ".join(f"{count} {status}" for status, count in counts.most_common())
    columns = ("row", "dtypes", "template", "observation", "kernel", "engines", "status")
    title = f"{variant.name}: {len(variant.rows)} rows; with each dtype config: {totals}"
    table = Table(*columns, title=title)
    group = ""
    for row, outcome in lines:
        if row.group != group:
            table.add_section()
            table.add_row(row.group, style="bold")
            group = row.group
        table.add_row(*_cells(row, outcome))
    return table


def _cells(row: NativeRow, outcome: Outcome) -> Iterator[str]:
    template = outcome.template
    yield row.pattern
    yield outcome.dtype
    yield "" if template is None else template.name
    yield row.observation + (" (shared with a number)" if row.by_tensors else "")
    yield "" if template is None else template.kernel
    yield "" if template is None else _engines(template)
    yield outcome.status + (f": {outcome.reason}" if outcome.reason else "")


def _engines(template: Template) -> str:
    if template.reach != "kernel":
        return ""
    engines = engines_of(template.kernel)
    return "all" if engines == ENGINES else ", ".join(engines) or "none needed"
