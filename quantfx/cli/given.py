"""MODEL of the command line: a ``.pt2`` file, or a function that returns a model and its data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from quantfx.cli.batches import read_batches
from quantfx.passes.errors import ArgumentError
from quantfx.passes.inputs.call_arguments import Examples
from quantfx.tools.bench.workload import call_function


@dataclass(frozen=True)
class Given:
    """The model and data that MODEL stands for.

    Attributes:
        model: The module, or the path of a ``.pt2`` file.
        example: Example inputs; empty for a file that has its own.
        batches: Batches that the function returned; None for a file.
    """

    model: nn.Module | Path
    example: Examples
    batches: Iterable[Any] | None

    def batches_of(self, data: Path | None, rows: int | None) -> Iterable[Any] | None:
        """Return the batches of DATA, or else those of the function; None if there are none.

        Args:
            data: DATA of the command line.
            rows: Rows of each batch of DATA; None leaves batches as they are.
        """
        return self.batches if data is None else read_batches(data, rows)


def read_given(model: str) -> Given:
    """Return the model and data that MODEL stands for.

    Args:
        model: MODEL of the command line.

    Raises:
        ArgumentError: it is neither a ``.pt2`` file nor a function.
        WorkloadError: the function does not exist, or returns something else.
    """
    if model.endswith(".pt2"):
        return Given(Path(model), (), None)
    if ":" not in model:
        message = f"MODEL '{model}' is neither a .pt2 file nor package.module:function"
        fix = "write a function that returns (model, example_inputs, calibration_batches)"
        raise ArgumentError(message, rule="not-a-model", site=model, fix=fix)
    return Given(*call_function(model))
