"""``quantfx backends``."""

from __future__ import annotations

import click
from rich.console import Console
from rich.table import Table

from quantfx.backends.backend import Backend
from quantfx.cli.command import command
from quantfx.patterns.errors import QuantfxError


@command(
    "backends",
    "quantfx backends",
    "quantfx backends x86 --target host",
    "quantfx backends native --variant qnnpack",
)
@click.argument("name", required=False)
@click.option("--variant", help="Of 'native', e.g. 'qnnpack'.")
@click.option(
    "--target", default="any", show_default=True, help="'host', 'any' or an instruction set."
)
def backends_command(name: str | None, variant: str | None, target: str) -> None:
    """List the backends with specs and pipelines.

    NAME is one of them; 'native' also lists the rows of torch's BackendConfig.
    """
    from quantfx import backends
    from quantfx.backends.quantized.rows import native_variant
    from quantfx.tools.drawing.native_table import native_table

    console = Console()
    if variant is not None and name != "native":
        fix = "write quantfx backends native --variant NAME"
        raise QuantfxError("only 'native' has variants", rule="no-variants", fix=fix)
    for each in backends.NAMES if name is None else (name,):
        if variant is None:
            console.print(_backend_table(backends.get(each, target=target)))
    if name == "native":
        console.print(native_table(native_variant(variant or "native")))


def _backend_table(backend: Backend) -> Table:
    table = Table(show_header=False, title=f"{backend.name} for {backend.target_name}")
    table.add_row("policy", backend.policy)
    table.add_row("modes", ", ".join(backend.recipe.patterns.modes))
    table.add_row("patterns", ", ".join(backend.recipe.patterns.names))
    for name, spec in backend.recipe.specs:
        table.add_row(name, str(spec))
    table.add_row("prepare", str(backend.prepare_pipeline))
    table.add_row("convert", str(backend.convert_pipeline))
    if backend.qat is not None:
        table.add_row("patterns of training", ", ".join(backend.qat.patterns.names))
        table.add_row("after training", str(backend.qat.finish))
    return table
