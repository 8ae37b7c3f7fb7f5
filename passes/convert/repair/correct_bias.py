"""Take the mean error of rounded weights out of the bias behind them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from quantfx.passes.convert.repair.repair import Repair
from quantfx.passes.convert.repair.repairable import RepairableLayer
from quantfx.passes.graph.editor import Editor
from quantfx.patterns.schema import argument_value, set_argument


@dataclass(frozen=True)
class CorrectBias(Repair):
    """``conv(x, w, b) -> conv(x, w, b - (w_q - w) E[x])``.

    Rounding errors of weights do not cancel where inputs are positive, as behind a ReLU: each
    output channel is off by a constant, which the mean of the inputs tells (Nagel et al. 2019,
    data-free quantization, arXiv 1906.04721, section 4.2). Each channel whose mean error would grow
    on inputs that the mean was not taken of keeps its bias.
    """

    name: ClassVar[str] = "correct-bias"
    counts: ClassVar[str] = "corrected"

    def obstacle(self, editor: Editor, layer: RepairableLayer) -> str:
        """A bias that is no stored tensor cannot be shifted."""
        bias = argument_value(layer.node, "bias")
        return "its bias is computed" if bias is not None and editor.stored(bias) is None else ""

    def repair(self, editor: Editor, layer: RepairableLayer) -> str:
        """Shift the bias, or store one."""
        node = layer.node
        bias = argument_value(node, "bias")
        stored = editor.stored(bias)
        with torch.no_grad():
            error = layer.values(layer.nearest) - layer.original
            shift = layer.inputs.mean_output(error)
            held = layer.inputs.held_outputs(error).mean(1)
            better = (held - shift).abs() < held.abs()
            shift = torch.where(better, shift, 0.0).float()
        if not bool(better.any()):
            return ""
        if stored is None:
            made = editor.constant(f"{node.name}_bias", -shift, like=node, before=node)
        else:
            made = editor.changed_constant(bias, _minus(stored, shift), before=node)
        set_argument(node, "bias", made)
        return f"{int(better.sum())} of {len(better)} channels"


def _minus(bias: Tensor, shift: Tensor) -> Tensor:
    return (bias.detach().double() - shift.double()).to(bias)
