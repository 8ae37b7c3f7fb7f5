"""Options and arguments that several commands have."""

from __future__ import annotations

from pathlib import Path

import click

FILE = click.Path(path_type=Path)

backend_option = click.option(
    "--backend", default="x86", show_default=True, help="Which: x86, xpu or native."
)
saved_argument = click.argument("file", type=FILE, metavar="FILE")
rows_option = click.option(
    "--rows", type=click.IntRange(min=1), help="Cut each batch of DATA into batches of ROWS rows."
)


def write_text(path: Path, text: str) -> None:
    """Write a file that the user asked for, in a folder that is made if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
