"""``quantfx compare``."""

from __future__ import annotations

import json as json_text
from pathlib import Path

import click
from rich.console import Console

from quantfx.cli.command import command
from quantfx.cli.options import (
    FILE,
    float_model_option,
    held_out_option,
    rows_option,
    saved_argument,
    write_text,
)


@command(
    "compare",
    "quantfx compare net.quantfx --model my.models:net --data held_out.npz",
    "quantfx compare net.quantfx --model net.pt2 --data images/ --rows 16 --html net.html",
)
@saved_argument
@float_model_option
@held_out_option
@rows_option
@click.option("--json", type=FILE, metavar="FILE", help="Write all figures to this file.")
@click.option("--draw", type=FILE, metavar="FILE", help="Draw the graph, coloured by error.")
@click.option("--html", type=FILE, metavar="FILE", help="Write a page for a browser to this file.")
def compare_command(
    file: Path,
    model: str,
    data: Path | None,
    rows: int | None,
    json: Path | None,
    draw: Path | None,
    html: Path | None,
) -> None:
    """Show where a saved model loses accuracy, and why.

    Every operator is compared with the float model's, on exact inputs and on the inputs that reach
    it.

    FILE was written by `quantfx quantize` or Result.save. `quantfx quantize --help` explains MODEL
    and DATA.
    """
    from quantfx.cli.saved import draw_heat, load_beside  # sympy

    result, float_model, batches = load_beside(file, model, data, rows)
    comparison = result.compare(batches, model=float_model)
    if json is not None:
        write_text(json, json_text.dumps(comparison.as_dict(), indent=2))
    Console().print(comparison)
    if draw is not None:
        draw_heat(result, draw, comparison.heat())
    if html is not None:
        click.echo(f"written to {result.html(html, comparison)}")
