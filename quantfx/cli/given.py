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
    """What MODEL stands for.

    Attributes:
        model: The module, or the path of a ``.pt2`` file.
        example: Example inputs; nothing where the file has its own.
        batches: Those that the function returns; None for a file.
    """

    model: nn.Module | Path
    example: Examples
    batches: Iterable[Any] | None

    def batches_of(self, data: Path | None, rows: int | None) -> Iterable[Any] | None:
        """Return the batches of DATA, or those that the function returned; None if neither is.

        Args:
            data: What the command line names.
            rows: Of each batch of DATA; None leaves them as they are.
        """
        return self.batches if data is None else read_batches(data, rows)


def read_given(model: str) -> Given:
    """Return what MODEL stands for.

    Args:
        model: As the command line has it.

    Raises:
        ArgumentError: it is neither a ``.pt2`` file nor a function.
        WorkloadError: there is no such function, or it returns something else.
    """
    if model.endswith(".pt2"):
        return Given(Path(model), (), None)
    if ":" not in model:
        message = f"MODEL '{model}' is neither a .pt2 file nor package.module:function"
        fix = "write a function that returns (model, example_inputs, calibration_batches)"
        raise ArgumentError(message, rule="not-a-model", site=model, fix=fix)
    return Given(*call_function(model))
