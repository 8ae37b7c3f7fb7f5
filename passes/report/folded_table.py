"""Tables whose cells are whole on a narrow terminal: a name that is cut off cannot be asked for."""

from __future__ import annotations

from rich.table import Column, Table


def folded_table(*names: str) -> Table:
    """Return a table with these columns; words that are longer than a column go on below."""
    return Table(*(Column(name, overflow="fold") for name in names))
