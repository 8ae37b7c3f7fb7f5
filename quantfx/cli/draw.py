"""``quantfx draw``."""

from __future__ import annotations

from pathlib import Path

import click

from quantfx.cli.command import command
from quantfx.cli.options import FILE, saved_argument


@command(
    "draw",
    "quantfx draw resnet.quantfx -o resnet.svg",
    "quantfx draw resnet.quantfx -o block.svg --around layer4.2 --graph lowered",
)
@saved_argument
@click.option("-o", "--output", type=FILE, required=True, help="File to write: .svg, .png or .dot.")
@click.option(
    "--graph",
    type=click.Choice(["qdq", "lowered"]),
    default="qdq",
    show_default=True,
    help="The q/dq graph, or the lowered graph.",
)
@click.option("--depth", type=click.IntRange(min=0), help="Draw deeper modules as one node each.")
@click.option("--around", metavar="NAME", help="Draw only what is near this node or module.")
def draw_command(
    file: Path, output: Path, graph: str, depth: int | None, around: str | None
) -> None:
    """Draw a saved model.

    FILE was written by `quantfx quantize` or Result.save. Large graphs are collapsed by module,
    unless --depth or --around selects a part. Without Graphviz's `dot` the DOT text is written.
    """
    from quantfx.cli.saved import load_to_read  # sympy
    from quantfx.tools.drawing.draw import draw

    result = load_to_read(file)
    module = result.quantized if graph == "qdq" else result.module
    click.echo(f"drawn to {draw(module, output, depth=depth, around=around)}")
