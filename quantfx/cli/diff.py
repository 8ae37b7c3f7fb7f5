"""``quantfx diff``."""

from __future__ import annotations

import json as json_text
from pathlib import Path

import click
from rich.console import Console

from quantfx.cli.command import command
from quantfx.cli.options import FILE, write_text

_DIFFERENT = 1


@command(
    "diff",
    "quantfx diff before.quantfx after.quantfx",
    "quantfx diff static.quantfx dynamic.quantfx --draw diff.svg --json diff.json",
)
@click.argument("before", type=FILE, metavar="A")
@click.argument("after", type=FILE, metavar="B")
@click.option("--json", type=FILE, metavar="FILE", help="Write all differences to this file.")
@click.option("--draw", type=FILE, metavar="FILE", help="Draw them to .svg, .png or .dot.")
def diff_command(before: Path, after: Path, json: Path | None, draw: Path | None) -> int:
    """Show what differs between two saved models.

    A and B were written by `quantfx quantize` or Result.save. The exit status is 0 if they are the
    same, and 1 if they differ.
    """
    from quantfx.api import diff
    from quantfx.cli.saved import load_to_read  # sympy

    found = diff(load_to_read(before), load_to_read(after))
    if json is not None:
        write_text(json, json_text.dumps(found.as_dict(), indent=2))
    Console().print(found)
    if draw is not None:
        from quantfx.tools.drawing.render import render

        click.echo(f"drawn to {render(found.to_dot(), draw)}")
    return _DIFFERENT if found else 0
