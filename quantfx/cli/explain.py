"""``quantfx explain``."""

from __future__ import annotations

import json as json_text
from pathlib import Path

import click
from rich.console import Console

from quantfx.cli.command import command
from quantfx.cli.options import FILE, saved_argument, write_text


@command(
    "explain",
    "quantfx explain resnet.quantfx layer4.2.conv3",
    "quantfx explain resnet.quantfx 'layer4.*'",
    "quantfx explain resnet.quantfx conv2d_3 --json conv2d_3.json",
)
@saved_argument
@click.argument("name")
@click.option("--json", type=FILE, metavar="FILE", help="Write the explanation to this file.")
def explain_command(file: Path, name: str, json: Path | None) -> None:
    """Explain what became of one operator, and why.

    FILE was written by `quantfx quantize` or Result.save. NAME is the path of a module or of a
    parameter, the name of a node (even if passes took it away), or a pattern of such names.
    """
    from quantfx.cli.saved import load_to_read  # sympy

    explained = load_to_read(file).explain(name)
    if json is not None:
        write_text(json, json_text.dumps(explained.as_dict(), indent=2))
    Console().print(explained)
