"""``quantfx doctor``."""

from __future__ import annotations

from pathlib import Path

import click

from quantfx.cli.command import command
from quantfx.cli.options import FILE


@command(
    "doctor",
    "quantfx doctor",
    "quantfx doctor --backend native",
    "quantfx doctor --compile --json doctor.json",
)
@click.option("--backend", default="x86", show_default=True, help="Backend whose templates to try.")
@click.option(
    "--compile",
    "compiles",
    is_flag=True,
    help="Also try the templates through Inductor; half a minute.",
)
@click.option("--json", type=FILE, metavar="FILE", help="Write all findings to this file.")
def doctor_command(backend: str, compiles: bool, json: Path | None) -> int:
    """Check what works in int8 on this machine.

    The exit status is 1 if anything that quantfx needs is missing.
    """
    from quantfx.tools.doctor.run import run  # it imports every backend's kernels

    report = run(backend, compiles=compiles, json=json)
    return 1 if report.problems else 0
