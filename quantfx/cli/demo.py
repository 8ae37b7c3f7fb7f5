"""``quantfx demo``."""

from __future__ import annotations

from pathlib import Path

import click

from quantfx.cli.command import command
from quantfx.cli.options import FILE


@command(
    "demo",
    "quantfx demo",
    "quantfx demo --full --output drawings",
)
@click.option(
    "--output", type=FILE, default="demo-out", show_default=True, help="Folder for drawings."
)
@click.option("--full", is_flag=True, help="Report every operator, reason and pass.")
def demo_command(output: Path, full: bool) -> None:
    """Quantize a trained network and measure it.

    It needs the packages of `pip install 'quantfx[demo]'` and requirements-demo.txt.
    """
    from quantfx.tools.demo.run import run  # it imports the demo's packages

    run(output, full=full)
