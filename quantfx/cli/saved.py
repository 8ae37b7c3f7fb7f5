"""FILE of the command line: a saved model to read, alone or beside its float model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click

from quantfx.cli.given import read_given
from quantfx.load_result import load
from quantfx.passes.model.given import Model
from quantfx.result import Result


def load_to_read(file: Path) -> Result:
    """Return a saved result; if it was made for a better CPU, warn of what would saturate.

    Args:
        file: A file that ``Result.save`` wrote.

    Raises:
        FileError: the file is not such a file, is damaged, or is of another version.
    """
    return load(file, strict=False)


class Beside(NamedTuple):
    """A saved result, the float model that it was made from, and data."""

    result: Result
    model: Model
    batches: Iterable[Any]


def load_beside(file: Path, model: str, data: Path | None, rows: int | None) -> Beside:
    """Return a saved result with its float model, and the batches of DATA or else of MODEL.

    Args:
        file: A file that ``Result.save`` wrote.
        model: MODEL of the command line.
        data: DATA of the command line.
        rows: Rows of a batch.

    Raises:
        UsageError: there are no batches.
        QuantfxError: a file or the model cannot be read.
    """
    result = load_to_read(file)
    given = read_given(model)
    batches = given.batches_of(data, rows)
    if batches is None:
        raise click.UsageError("--data DATA is needed, as a .pt2 file has no batches")
    return Beside(result, given.model, batches)


def draw_heat(result: Result, path: Path, heat: Mapping[str, float]) -> None:
    """Draw the q/dq graph, coloured by ``heat``, and print where."""
    from quantfx.tools.drawing.draw import draw

    click.echo(f"drawn to {draw(result.quantized, path, heat=heat)}")
