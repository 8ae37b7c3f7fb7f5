"""``quantfx quantize``."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from quantfx.cli.command import command
from quantfx.cli.options import FILE, backend_option, rows_option
from quantfx.passes.report.text import print_report


@command(
    "quantize",
    "quantfx quantize net.pt2 --calibration images.npz --rows 32 -o net.quantfx",
    "quantfx quantize my.models:bert -o bert.quantfx --config dynamic",
    "quantfx quantize my.models:net --calibration batches/ -o net.quantfx --target any",
    explained={
        "DATA": (
            (
                "a folder",
                "its files in the order of their names; other kinds of files are skipped",
            ),
            (".npy", "one batch of one tensor"),
            (
                ".npz, .safetensors",
                "one batch: arrays arr_0, arr_1, ... or a single one are arguments in order, "
                "others arguments by name (.safetensors needs the package of that name)",
            ),
            (
                ".pt",
                "a tensor, a tuple of arguments or a dict of them by name is one batch, a list is "
                "a list of batches",
            ),
            (
                "rows",
                "a batch may have any number; --rows cuts large ones, which saves memory",
            ),
            (
                "safety",
                "nothing is unpickled: numpy reads with allow_pickle=False, torch.load with "
                "weights_only=True",
            ),
        )
    },
)
@click.argument("model")
@click.option(
    "--calibration",
    type=FILE,
    metavar="DATA",
    help="Calibration batches; by default those of the function.",
)
@click.option("-o", "--output", type=FILE, required=True, help="File to write, e.g. net.quantfx.")
@backend_option
@click.option(
    "--target", default="host", show_default=True, help="'host', 'any' or an instruction set."
)
@click.option(
    "--config",
    metavar="MODE|FILE",
    help="static, dynamic, fp16, weight-only, or a .toml or .json file.",
)
@click.option(
    "--example",
    type=FILE,
    metavar="DATA",
    help="Take the example inputs from its first batch; by default from MODEL.",
)
@rows_option
@click.option("--no-strict", is_flag=True, help="Only warn if the contract does not hold.")
@click.option("--no-input-values", is_flag=True, help="Do not store example values.")
@click.option("--full", is_flag=True, help="Report every operator, reason and pass.")
def quantize_command(
    model: str,
    calibration: Path | None,
    output: Path,
    backend: str,
    target: str,
    config: str | None,
    example: Path | None,
    rows: int | None,
    no_strict: bool,
    no_input_values: bool,
    full: bool,
) -> None:
    """Quantize a model, save it, and report what became of it.

    MODEL is a .pt2 file that torch.export.save wrote, which torch.export.load reads, or
    package.module:function, which is imported and called: it returns (model, example_inputs,
    calibration_batches), as for `quantfx bench`. Its code runs: name only what you trust.
    """
    from quantfx import backends
    from quantfx.api import quantize
    from quantfx.cli.batches import first_batch
    from quantfx.cli.given import read_given

    progress = Console(stderr=True)
    chosen = backends.get(backend, target=target)
    progress.print(f"reading {model}", style="dim", markup=False)
    given = read_given(model)
    inputs = given.example if example is None else first_batch(example, rows)
    batches = given.batches_of(calibration, rows)
    progress.print("exporting, matching, calibrating, converting", style="dim")
    result = quantize(
        given.model,
        inputs,
        calibration=batches,
        backend=chosen,
        config=config,
        strict=not no_strict,
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    result.save(output, input_values=not no_input_values)
    print_report(Console(), result.report, full=full)
    click.echo(f"written: {output}")
