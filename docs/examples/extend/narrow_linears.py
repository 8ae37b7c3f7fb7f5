"""A kernel family of your own: linears of at most 64 outputs, in front of oneDNN's kernels.

It prints::

    ['qlinear_pointwise', 'narrow.linear']
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import nn

import quantfx
from quantfx.passes import Candidate, Editor, Emission, KernelFamily
from quantfx.patterns import resolve_op

LINEAR = resolve_op("aten.linear.default")


@dataclass(frozen=True)
class NarrowLinears(KernelFamily):
    """Stands for a kernel: it calls the float linear on the dequantized tensors."""

    most: int = 64
    name: ClassVar[str] = "narrow"
    kernels: ClassVar[frozenset[str]] = frozenset({"qlinear_pointwise"})

    def takes(self, candidate: Candidate) -> bool:
        """Whether it is for this family; wider linears go to the next family."""
        return super().takes(candidate) and candidate.anchor.meta["val"].shape[-1] <= self.most

    def refuses(self, candidate: Candidate, editor: Editor) -> str | None:
        """Refuse a template with more behind the linear; one without it is tried next."""
        return None if candidate.match.output is candidate.anchor else "more than a linear"

    def emit(self, candidate: Candidate, editor: Editor) -> Emission:
        """Write the call; what is quantized behind it stays an operator of its own."""
        node = candidate.anchor
        call = editor.call(LINEAR, node.args, like=node, before=node)
        return Emission(call, node, "narrow.linear")


if __name__ == "__main__":
    torch.manual_seed(0)
    x = torch.randn(4, 8)
    model = nn.Sequential(nn.Linear(8, 128), nn.Linear(128, 16)).eval()
    backend = quantfx.backends.get("x86", kernels="onednn")
    backend = replace(backend, kernels=(NarrowLinears(), *backend.kernels))
    result = quantfx.quantize(model, (x,), calibration=[x], backend=backend)
    print([site.kernel for site in result.report.sites])
    worst = max(site.steps or 0 for site in result.compare_sites())
    assert worst <= 1, "steps between a kernel and the float arithmetic that it replaces"
