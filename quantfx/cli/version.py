"""``quantfx --version``: the versions to name in a bug report."""

from __future__ import annotations

import click
import torch


def _print(context: click.Context, option: click.Parameter, asked: bool) -> None:
    if not asked or context.resilient_parsing:
        return
    import quantfx
    from quantfx.backends.checks import targets

    cpu = targets.host().name
    click.echo(f"quantfx {quantfx.__version__}, torch {torch.__version__}, target {cpu}")
    context.exit()


version_option = click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print,
    help="Show the versions of quantfx and torch, and the target that this CPU is.",
)
