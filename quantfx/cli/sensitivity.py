"""``quantfx sensitivity``."""

from __future__ import annotations

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
    "sensitivity",
    "quantfx sensitivity net.quantfx --model my.models:net --data held_out.npz",
    "quantfx sensitivity net.quantfx --model net.pt2 --data images/ --chart net.svg",
)
@saved_argument
@float_model_option
@held_out_option
@rows_option
@click.option(
    "--evaluate", default=0, metavar="N", help="Also try the N costliest sites, one by one."
)
@click.option(
    "--whole", is_flag=True, help="Start from the measured error of all sites; 2.4 times as slow."
)
@click.option("--json", type=FILE, metavar="FILE", help="Write all figures to this file.")
@click.option("--chart", type=FILE, metavar="FILE", help="Draw the worst sites as bars, as SVG.")
@click.option("--draw", type=FILE, metavar="FILE", help="Draw the graph, coloured by cost.")
def sensitivity_command(
    file: Path,
    model: str,
    data: Path | None,
    rows: int | None,
    *,
    evaluate: int,
    whole: bool,
    json: Path | None,
    chart: Path | None,
    draw: Path | None,
) -> None:
    """Show what rounding each site of a saved model costs.

    One pass over the data estimates this for all sites, and what leaving each float would gain.

    FILE was written by `quantfx quantize` or Result.save. `quantfx quantize --help` explains MODEL
    and DATA.
    """
    from quantfx.cli.saved import draw_heat, load_beside  # sympy

    result, float_model, batches = load_beside(file, model, data, rows)
    found = result.sensitivity(batches, float_model, evaluate=evaluate, whole=whole)
    if json is not None:
        write_text(json, found.to_json())
    Console().print(found)
    if chart is not None:
        click.echo(f"drawn to {found.chart(chart)}")
    if draw is not None:
        draw_heat(result, draw, found.heat())
