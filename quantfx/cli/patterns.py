"""``quantfx patterns``."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from quantfx.cli.command import command
from quantfx.cli.options import FILE, backend_option
from quantfx.patterns.pattern_set import PatternSet


@command(
    "patterns",
    "quantfx patterns",
    "quantfx patterns --backend native --draw templates.svg",
)
@backend_option
@click.option("--draw", type=FILE, metavar="FILE", help="Draw the templates to .svg, .png or .dot.")
def patterns_command(backend: str, draw: Path | None) -> int:
    """List, lint and draw the templates of a backend.

    The exit status is 1 if the lint finds anything.
    """
    from quantfx import backends
    from quantfx.patterns.linter import lint  # networkx

    console = Console()
    chosen = backends.get(backend, target="any")
    patterns = chosen.recipe.patterns
    if chosen.qat is not None:
        patterns = patterns | chosen.qat.patterns
    console.print(_pattern_table(patterns))
    if patterns.unsupported:
        table = Table("stays float", "because")
        for op, reason in patterns.unsupported:
            table.add_row(op.name, reason)
        console.print(table)
    findings = lint(patterns)
    for finding in findings:
        console.print(f"{finding.rule}: {finding.template}: {finding.message}", style="red")
    if draw is not None:
        from quantfx.patterns.dot import pattern_set_to_dot
        from quantfx.tools.drawing.render import render

        console.print(f"drawn to {render(pattern_set_to_dot(patterns), draw)}")
    return 1 if findings else 0


def _pattern_table(patterns: PatternSet) -> Table:
    table = Table("template", "mode", "nodes", "quantized", "reaches", title=patterns.name)
    for template in patterns.templates:
        nodes = "\n".join(str(node) for node in template.nodes)
        checks = "".join(f"\nif {check}" for check in template.checks)
        quant = "\n".join(f"{key}: {spec}" for key, spec in template.quant.items())
        mode = template.mode + (" (on request)" if template.on_request else "")
        reaches = template.kernel or template.reach
        table.add_row(template.name, mode, nodes + checks, quant, reaches)
    return table
