"""``quantfx report``."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from quantfx.cli.command import command
from quantfx.cli.options import FILE, saved_argument, write_text
from quantfx.passes.report.text import print_report


@command(
    "report",
    "quantfx report resnet.quantfx",
    "quantfx report resnet.quantfx --full --json report.json",
    "quantfx report resnet.quantfx --html resnet.html",
)
@saved_argument
@click.option("--full", is_flag=True, help="Show every operator, reason and pass.")
@click.option("--json", type=FILE, metavar="FILE", help="Write the whole report to this file.")
@click.option("--html", type=FILE, metavar="FILE", help="Write a page for a browser to this file.")
def report_command(file: Path, full: bool, json: Path | None, html: Path | None) -> None:
    """Report what became of the operators of a saved model.

    FILE was written by `quantfx quantize` or Result.save.
    """
    from quantfx.cli.saved import load_to_read  # sympy

    result = load_to_read(file)
    if json is not None:
        write_text(json, result.report.to_json())
    print_report(Console(), result.report, full=full)
    if html is not None:
        click.echo(f"written to {result.html(html)}")
