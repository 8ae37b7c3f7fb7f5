"""Tables that fold long cells on a narrow terminal: a truncated name cannot be used in a query."""

from __future__ import annotations

from rich.table import Column, Table


def folded_table(*names: str) -> Table:
    """Return a table with these columns; words longer than a column continue below."""
    return Table(*(Column(name, overflow="fold") for name in names))
