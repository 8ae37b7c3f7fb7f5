"""A pass of your own: ``x * 1.0 -> x``.

It prints::

    without the pass: conv2d
    with it: conv2d_unary
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

import quantfx
from quantfx.passes import CheckNumerics, Context, Editor, GraphPass
from quantfx.patterns import argument_value, resolve_op

MUL = resolve_op("aten.mul.Tensor")


@dataclass(frozen=True)
class DropFactors(GraphPass):
    """``x * 1.0 -> x``, for factors as near to 1 as ``tolerance`` says."""

    tolerance: float = 0.0
    name: ClassVar[str] = "drop-factors"
    counts: ClassVar[str] = "dropped"

    def rewrite(self, editor: Editor, context: Context) -> int:
        """Return how many products were dropped."""
        dropped = 0
        for node in editor.graph.find_nodes(op="call_function", target=MUL):
            factor = argument_value(node, "other")
            if isinstance(factor, float) and abs(factor - 1) <= self.tolerance:
                editor.replace(node, node.all_input_nodes[0])
                dropped += 1
        return dropped


conv = nn.Conv2d(3, 8, 3).eval()


def scaled(x: Tensor) -> Tensor:
    """Return a convolution with a factor that does nothing; quantize takes functions, too."""
    return torch.relu(conv(x) * 1.0)


if __name__ == "__main__":
    x = torch.randn(2, 3, 8, 8)
    backend = quantfx.backends.get("x86")
    pipeline = backend.prepare_pipeline.after("fold-batch-norm", DropFactors(tolerance=1e-6))
    assert quantfx.Pipeline.parse(str(pipeline), passes=(DropFactors,)) == pipeline
    mine = replace(backend, prepare_pipeline=pipeline)
    graph = quantfx.capture(scaled, (x,))
    pipeline.run(graph, mine.context, instruments=(CheckNumerics((x,)),))
    for name, each in (("without the pass", backend), ("with it", mine)):
        result = quantfx.quantize(graph, (x,), calibration=[x], backend=each)
        [found] = result.explain("conv")
        print(f"{name}: {found.match.template if found.match else 'float'}")
