"""Options and arguments that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

FILE = click.Path(path_type=Path)

backend_option = click.option(
    "--backend", default="x86", show_default=True, help="x86, xpu or native."
)
saved_argument = click.argument("file", type=FILE, metavar="FILE")
float_model_option = click.option(
    "--model",
    required=True,
    metavar="MODEL",
    help="The float model that FILE was made from: a .pt2 file, or package.module:function.",
)
held_out_option = click.option(
    "--data",
    type=FILE,
    metavar="DATA",
    help="Batches, preferably unseen in calibration; by default those of the function.",
)
rows_option = click.option(
    "--rows", type=click.IntRange(min=1), help="Cut each batch of DATA into batches of ROWS rows."
)


def write_text(path: Path, text: str) -> None:
    """Write a file that the user asked for; make its folder if missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
