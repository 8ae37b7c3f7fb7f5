"""The s8 ``onednn.*`` graph for Intel GPUs, as far as it can be verified without one.

Traced anew with fake tensors on device "xpu": shapes, dtypes and devices are those of the q/dq graph,
every planned convolution and linear is a kernel call, and sums fuse as planned. Nothing is executed.
"""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from syrupy.assertion import SnapshotAssertion
from torch.fx import GraphModule

from quantfx import backends
from quantfx.backends.inductor.fuse_sums import FuseSums
from quantfx.backends.onednn.ops import KERNEL_NAMES, QCONV, QLINEAR
from quantfx.passes.pipeline.base import Context
from quantfx.patterns.schema import is_operator_call, overload
from tests import unchecked
from tests.backends.test_xpu_freezing import CASES, Case, quantized, retraced
from tests.models.small import cat_pool_net

IMAGE = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def kernels(module: GraphModule) -> Counter[str]:
    calls = (overload(node) for node in module.graph.nodes if is_operator_call(node))
    return Counter(KERNEL_NAMES[call] for call in calls if call in KERNEL_NAMES)


def results(module: GraphModule) -> list[tuple[object, ...]]:
    [output] = module.graph.find_nodes(op="output")
    values = [node.meta["val"] for node in output.all_input_nodes]
    return [(value.shape, value.dtype, value.device.type) for value in values]


@pytest.mark.parametrize("symmetric", [False, True], ids=["affine", "symmetric"])
@pytest.mark.parametrize("name", CASES)
def test_every_planned_site_is_a_kernel_call_on_fake_xpu_tensors(
    name: str, symmetric: bool
) -> None:
    case: Case = CASES[name]
    module = quantized(case, symmetric=symmetric)
    lowered = retraced(backends.get("xpu", target="any").lower(module), case.inputs, "xpu")
    assert results(lowered) == results(retraced(module, case.inputs, "xpu"))
    for op in (QCONV, QLINEAR):
        for node in lowered.graph.find_nodes(op="call_function", target=op):
            activation = node.all_input_nodes[0].meta["val"]
            assert (activation.dtype, activation.device.type) == (torch.int8, "xpu")
    assert kernels(lowered).total() == sum(case.kernels.values())
    FuseSums().run(lowered, Context())
    lowered.graph.lint()
    assert kernels(lowered) == case.kernels


@pytest.mark.parametrize("backend", ["x86", "xpu"])
def test_the_lowered_graph_is_drawn(backend: str, graph_snapshot: SnapshotAssertion) -> None:
    result = unchecked.quantize(
        cat_pool_net(), (IMAGE,), backend=backends.get(backend, target="any"), strict=False
    )
    assert result.report.unverified == ("no XPU" if backend == "xpu" else "")
    assert backends.get(backend, target="any").lowering(result.quantized).module == graph_snapshot
