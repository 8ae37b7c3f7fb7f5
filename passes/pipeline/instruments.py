"""Observers of a pipeline run: graph dumps and numeric checks around each pass."""

from __future__ import annotations

from abc import ABC
from typing import Any

import torch
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from quantfx.passes.errors import PassError
from quantfx.passes.graph.clone import recompile
from quantfx.passes.model.input_copies import spare_inputs
from quantfx.passes.pipeline.base import Pass
from quantfx.passes.pipeline.record import PassRecord


class Instrument(ABC):  # noqa: B024  both hooks are optional
    """Called before and after each pass of a pipeline run."""

    def before(self, position: int, each: Pass, module: GraphModule) -> None:  # noqa: B027
        """Inspect ``module`` before pass number ``position`` (from 0)."""

    def after(  # noqa: B027
        self, position: int, each: Pass, module: GraphModule, record: PassRecord
    ) -> None:
        """Inspect ``module`` and the pass's record after a pass that was verified."""


class CheckNumerics(Instrument):
    """Check on example inputs that passes which claim to keep the float function do so.

    Args:
        inputs: Positional arguments of the module.
        kwargs: Keyword arguments.
        tolerance: Largest error, relative to the largest output magnitude.
    """

    def __init__(
        self,
        inputs: tuple[Any, ...],
        kwargs: dict[str, Any] | None = None,
        tolerance: float = 1e-5,
    ) -> None:
        self._inputs = inputs
        self._kwargs = kwargs or {}
        self._tolerance = tolerance
        self._reference: list[torch.Tensor] = []

    def before(self, position: int, each: Pass, module: GraphModule) -> None:
        """Run the module before the pass."""
        if each.keeps_float:
            self._reference = self._outputs(module)

    def after(self, position: int, each: Pass, module: GraphModule, record: PassRecord) -> None:
        """Compare with what the module computed before the pass."""
        if not (each.keeps_float and record.changed):
            return
        for index, (a, b) in enumerate(zip(self._reference, self._outputs(module), strict=True)):
            scale = a.abs().max() if a.numel() else torch.tensor(0.0)
            error = float((a - b).abs().max()) if a.numel() else 0.0
            if not error <= self._tolerance * max(float(scale), torch.finfo(torch.float32).tiny):
                raise PassError(
                    f"the pass changed the function: output {index} is off by {error:.3g} where "
                    f"the largest magnitude is {float(scale):.3g}",
                    rule="changed-function",
                    site=f"output {index}",
                )

    def _outputs(self, module: GraphModule) -> list[torch.Tensor]:
        recompile(module)
        args, kwargs = spare_inputs(module, self._inputs, self._kwargs)
        with torch.no_grad():
            outputs = module(*args, **kwargs)
        leaves = pytree.tree_leaves(outputs)
        return [leaf.double() for leaf in leaves if isinstance(leaf, torch.Tensor)]
