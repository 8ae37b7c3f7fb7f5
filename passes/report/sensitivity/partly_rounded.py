"""The model with chosen sites rounded as in the q/dq graph, and the other sites in float."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import nn
from torch.fx import Node

from quantfx.passes.graph.state import preserved_state
from quantfx.passes.inputs.leaves import input_leaves
from quantfx.passes.model.input_copies import copy_inputs
from quantfx.passes.observe.stepper import Stepper
from quantfx.passes.report.compare.parts import Part
from quantfx.passes.report.sensitivity.paired_graphs import PairedGraphs


class PartlyRounded(nn.Module):
    """Computes some sites as in the q/dq graph, and all others as in the float graph.

    Ranges always come from the q/dq graph: nothing is recalibrated. Calls run operator by operator
    without gradients, and take inputs of the sizes that the graphs take.

    Args:
        paired: Both graphs.
        rounded: The anchors of the sites to round.
    """

    def __init__(self, paired: PairedGraphs, rounded: Collection[str]) -> None:
        super().__init__()
        self._paired = paired
        self._parts = [part for part in paired.parts if part.anchor.name in rounded]
        self._stepper = _PartlyRoundedStepper(paired, self._parts)
        self.eval()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the model's results."""
        paired = self._paired
        leaves = [leaf for _, leaf in input_leaves(paired.reference, *copy_inputs(args, kwargs))]
        with torch.no_grad(), preserved_state(paired.reference), preserved_state(paired.quantized):
            self._stepper.start(leaves, paired.kept(self._parts))
            found = self._stepper.value(paired.output)
        return paired.reference.graph.process_outputs(found)


class _PartlyRoundedStepper(Stepper):
    """Runs the float graph, with the result of each of ``parts`` as in the q/dq graph."""

    def __init__(self, paired: PairedGraphs, parts: Collection[Part]) -> None:
        super().__init__(paired.reference)
        self._paired = paired
        self._rounded = {paired.end(part): part for part in parts}

    def _call(self, node: Node, values: Mapping[Node, Any]) -> Any:
        part = self._rounded.get(node)
        if part is None:
            return super()._call(node, values)
        found = self._paired.own_value(part, values)
        for each in self._paired.inputs(part):
            self.release(each)
        return found
