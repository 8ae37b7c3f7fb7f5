"""A pass, an observer, a template set, a kernel family and a backend from outside of quantfx.

Nothing but public names; the test copies this file to an empty folder, type-checks and runs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

import quantfx
from quantfx.backends import CONVERT, PREPARE, Backend
from quantfx.errors import QuantfxError
from quantfx.passes import (
    Annotate,
    Candidate,
    Context,
    Editor,
    Emission,
    GraphPass,
    KernelFamily,
    Lower,
    Observer,
    Pipeline,
    QParams,
    QuantSpec,
    Recipe,
    qparams_from_range,
)
from quantfx.patterns import argument_value, lint, load, resolve_op

MUL = resolve_op("aten.mul.Tensor")
LINEAR = resolve_op("aten.linear.default")


@dataclass(frozen=True)
class DropUnitFactors(GraphPass):
    """``x * 1.0 -> x``."""

    name: ClassVar[str] = "drop-unit-factors"
    counts: ClassVar[str] = "dropped"

    def rewrite(self, editor: Editor, context: Context) -> int:
        """Replace each product by its first factor where the other one is 1."""
        dropped = 0
        for node in editor.graph.find_nodes(op="call_function", target=MUL):
            if argument_value(node, "other") == 1.0:
                editor.replace(node, node.all_input_nodes[0])
                dropped += 1
        return dropped


class LargestOfAll(Observer):
    """The range from minus to plus the largest magnitude that was seen."""

    largest: Tensor

    def __init__(self, spec: QuantSpec, label: str = "") -> None:
        super().__init__(spec, label)
        self.register_buffer("largest", torch.tensor(0.0))
        self.register_buffer("seen", torch.tensor(False))

    def observe(self, x: Tensor) -> None:
        """Keep the largest magnitude."""
        self.largest = torch.maximum(self.largest, x.abs().max())
        self.seen = torch.tensor(True)

    @property
    def observed(self) -> bool:
        """Whether anything was seen."""
        return bool(self.seen)

    def calculate_qparams(self) -> QParams:
        """Return scale and zero point."""
        self.require_observed()
        return qparams_from_range(-self.largest, self.largest, self.spec)


@dataclass(frozen=True)
class Gate(KernelFamily):
    """Kernels of the device: here, linears of at most 64 outputs on dequantized tensors."""

    name: ClassVar[str] = "gate"
    kernels: ClassVar[frozenset[str]] = frozenset({"gate.linear", "gate.linear_relu"})

    def refuses(self, candidate: Candidate, editor: Editor) -> str | None:
        """Return why the device cannot, if it cannot."""
        rows = candidate.anchor.meta["val"].shape[-1]
        return f"{rows} outputs, and the device has 64" if rows > 64 else None

    def emit(self, candidate: Candidate, editor: Editor) -> Emission:
        """Call the linear once more; a relu behind it stays an operator of its own."""
        node = candidate.anchor
        call = editor.call(LINEAR, node.args, like=node, before=node)
        return Emission(call, node, candidate.kernel)


PATTERNS = load(Path(__file__).with_suffix(".toml"))
ACT = QuantSpec(torch.uint8, 0, 255, symmetric=True, observer=LargestOfAll)
WEIGHT = QuantSpec(torch.int8, -127, 127, symmetric=True, axis=0, observer="min_max")
GATE = Backend(
    "gate",
    Recipe("gate", PATTERNS, (("act", ACT), ("weight", WEIGHT))),
    prepare_pipeline=PREPARE.before("annotate-linear", DropUnitFactors()).replace(
        "annotate-linear", Annotate("gate")
    ),
    convert_pipeline=CONVERT,
    lower_pipeline=Pipeline((Lower(),), name="lower"),
    kernels=(Gate(),),
    policy="made up",
)


class Net(nn.Module):
    """Two linears with a factor of 1 in between."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.first = nn.Linear(8, 16)
        self.last = nn.Linear(16, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return what comes out."""
        result: Tensor = self.last(torch.relu(self.first(x)) * 1.0)
        return result


def main() -> None:
    """Quantize, and say what became of it."""
    torch.manual_seed(0)
    x = torch.randn(4, 8)
    assert lint(PATTERNS) == ()
    result = quantfx.quantize(Net(4).eval(), (x,), calibration=[x], backend=GATE, progress=False)
    print([site.kernel for site in result.report.sites])
    difference = (result.module(x) - result.quantized(x)).abs().max()
    print(float(difference) < 1e-5, "aten.mul.Tensor" in str(result.quantized.graph))
    try:
        wide = quantfx.quantize(Net(99).eval(), (x,), calibration=[x], backend=GATE, progress=False)
        wide.module(x)
    except QuantfxError as error:
        print("refused:", error)


if __name__ == "__main__":
    main()
