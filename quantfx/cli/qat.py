"""``quantfx qat``."""

from __future__ import annotations

from pathlib import Path

import click

from quantfx.cli.command import command
from quantfx.cli.options import FILE


@command(
    "qat",
    "quantfx qat",
    "quantfx qat --output curves",
)
@click.option(
    "--output", type=FILE, default="demo-out", show_default=True, help="Folder for the curves."
)
def qat_command(output: Path) -> None:
    """Train two small networks with weights of few bits."""
    from quantfx.tools.demo.low_bits import run  # it imports the demo's packages

    run(output)
