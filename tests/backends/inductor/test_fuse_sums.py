"""Sums go into the kernel before them where nothing else needs what is overwritten."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch
from syrupy.assertion import SnapshotAssertion
from torch import Tensor, nn
from torch.fx import GraphModule

import quantfx
from quantfx import backends
from quantfx.backends.inductor.fuse_sums import FuseSums
from quantfx.backends.onednn.ops import QCONV_SUM, QLINEAR_ADD
from quantfx.passes.pipeline.pipeline import Pipeline
from tests import unchecked
from tests.export_cases import Net
from tests.models.small import residual_block

X86 = backends.get("x86")
X = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
ROWS = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))


def conv() -> nn.Module:
    return nn.Conv2d(4, 4, 3, padding=1)


def quantize(forward: Callable[..., Tensor], *layers: nn.Module, x: Tensor = X) -> quantfx.Result:
    torch.manual_seed(0)
    model = Net(forward, *layers).eval()
    return unchecked.quantize(model, (x,), backend=X86)


def fused(result: quantfx.Result, op: object) -> int:
    module = Pipeline((FuseSums(),)).run(result.module)
    return len(module.graph.find_nodes(op="call_function", target=op))  # type: ignore[arg-type]


# f is a stem, h(g(y)) a block beside y, and k a layer behind the sum.
FUSED: dict[str, tuple[int, Callable[..., Tensor]]] = {
    "into the integers of the summand": (
        1, lambda f, g, h, k, x: k((h(g(y := f(x).relu()).relu()) + y).relu())),
    "without relu": (1, lambda f, g, h, k, x: k(h(g(y := f(x).relu()).relu()) + y)),
    "the other operand": (1, lambda f, g, h, k, x: k((y := f(x).relu()) + h(g(y).relu()))),
    "into a float summand": (1, lambda f, g, h, k, x: (h(g(y := f(x).relu()).relu()) + y).relu()),
    "one sum after another": (
        2, lambda f, g, h, k, x: (
            k(g(z := (h(g(y := f(x).relu()).relu()) + y).relu()).relu()) + z).relu()),
    "two branches": (1, lambda f, g, h, k, x: k((g(y := f(x).relu()) + h(y)).relu())),
    # What must not be overwritten:
    "the kernel reads it": (0, lambda f, g, h, k, x: k((g(y := f(x).relu()) + y).relu())),
    "read later": (0, lambda f, g, h, k, x: k((h(g(y := f(x).relu()).relu()) + y).relu()) * k(y)),
    "an output": (
        0, lambda f, g, h, k, x: torch.stack([k((h(g(y := f(x).relu()).relu()) + y).relu()), y])),
}  # fmt: skip


# What Inductor makes of these it makes of one sum after another; that nothing is fused is seen
# without it.
SWEPT = {
    "into the integers of the summand",
    "without relu",
    "the other operand",
    "into a float summand",
    "two branches",
    "the kernel reads it",
    "read later",
    "an output",
}


@functools.cache
def four_layers(case: str) -> quantfx.Result:
    return quantize(FUSED[case][1], conv(), conv(), conv(), conv())


@pytest.mark.parametrize("case", FUSED)
def test_what_is_fused_and_what_is_not(case: str) -> None:
    count, result = FUSED[case][0], four_layers(case)
    assert fused(result, QCONV_SUM) == count
    assert all(each.within(1, 1e-5) for each in result.compare_sites())


@pytest.mark.parametrize("case", [
    pytest.param(case, marks=[pytest.mark.sweep] * (case in SWEPT)) for case in FUSED
])  # fmt: skip
def test_nothing_that_is_read_later_is_overwritten(case: str) -> None:
    count, result = FUSED[case][0], four_layers(case)
    compiled = result.compile()
    assert sum(call.kernel == "qconv2d_pointwise.binary" for call in compiled.kernels) == count
    expected = result.module(X)
    for _ in range(2):  # a second call would see what the first had overwritten
        torch.testing.assert_close(compiled(X), expected, rtol=1e-4, atol=1e-5)


def test_the_input_of_the_model_is_not_overwritten() -> None:
    result = quantize(lambda f, g, x: g(f(x) + x), conv(), conv())
    before = X.clone()
    torch.testing.assert_close(result.compile()(X), result.module(X), rtol=1e-4, atol=1e-5)
    assert torch.equal(X, before)


@pytest.mark.parametrize(("count", "summand"), [
    (1, lambda z: z), (0, lambda z: z.split([3, 1], 1)[0]), (0, lambda z: z[:, :3]),
])  # fmt: skip
def test_part_of_another_tensor_is_not_overwritten(
    count: int, summand: Callable[[Tensor], Tensor]
) -> None:
    torch.manual_seed(0)
    channels = 4 if count else 3
    model = Net(lambda f, x: f(x) + summand(x.sin()), nn.Conv2d(4, channels, 3, padding=1)).eval()
    backend = X86.without_templates("conv2d_add")  # which would quantize the summand
    result = unchecked.quantize(model, (X,), backend=backend)
    assert fused(result, QCONV_SUM) == count
    if count:  # what is not fused is an add like any other
        torch.testing.assert_close(result.compile()(X), result.module(X), rtol=1e-5, atol=1e-6)


def test_a_linear_leaves_its_summand_alone_so_it_may_be_read_later() -> None:
    result = quantize(
        lambda f, g, x: (g(y := f(x)) + y).relu() * y, nn.Linear(8, 8), nn.Linear(8, 8), x=ROWS
    )
    assert fused(result, QLINEAR_ADD) == 1
    compiled = result.compile()
    torch.testing.assert_close(compiled(ROWS), result.quantized(ROWS), rtol=1e-4, atol=1e-5)


def test_a_sum_that_broadcasts_stays() -> None:
    result = quantize(
        lambda f, g, x: g(f(x)) + f(x).mean(0, keepdim=True),
        nn.Linear(8, 8),
        nn.Linear(8, 8),
        x=ROWS,
    )
    assert fused(result, QLINEAR_ADD) == 0


@pytest.mark.parametrize(("count", "summand"), [
    (1, lambda x: x.sin()),
    (0, lambda x: torch.slice_scatter(x, x[:, :4] + 1, 1, 0, 4)),
    (0, lambda x: torch.select_scatter(x, x[:, 0] + 1, 1, 0)),
    (0, lambda x: torch.diagonal_scatter(x, x.diagonal() + 1)),
])  # fmt: skip
def test_a_linear_is_not_fused_with_a_tensor_that_was_written_to(
    count: int, summand: Callable[[Tensor], Tensor]
) -> None:
    result = quantize(lambda f, x: f(x) + summand(x), nn.Linear(8, 8), x=ROWS)
    assert fused(result, QLINEAR_ADD) == count
    if count:  # what is not fused is an add like any other
        expected = result.quantized(ROWS)
        torch.testing.assert_close(result.compile()(ROWS), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("rank", "reason"), [
    (1, "squeeze_dim is aten.squeeze.dim, not add"), (3, "only two-dimensional kernels sum"),
])  # fmt: skip
@pytest.mark.parametrize("compiles", [False, pytest.param(True, marks=pytest.mark.sweep)])
def test_only_two_dimensional_convolutions_sum(compiles: bool, rank: int, reason: str) -> None:
    layer = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
    x = torch.randn(1, 4, *[5] * rank)
    result = quantize(
        lambda f, g, x: g(f(x).relu()) + x.sin(),  # a fresh float summand
        *(layer(4, 4, 3, padding=1) for _ in range(2)),
        x=x,
    )
    assert fused(result, QCONV_SUM) == 0
    assert reason in why_not(result)
    if compiles:  # what is not fused is an add like any other
        expected = result.quantized(x)
        torch.testing.assert_close(result.compile()(x), expected, rtol=1e-4, atol=1e-5)


def why_not(result: quantfx.Result) -> str:
    from quantfx.backends.inductor.fuse_sums import (  # the reason has no other way out
        _matcher,
        _Sums,
    )

    graph = result.module.graph
    misses = [m for n in graph.nodes for m in _matcher().explain(n, admission=_Sums())]
    return max(misses, key=lambda miss: miss.depth).reason


def test_the_fused_graph_is_drawn(graph_snapshot: SnapshotAssertion) -> None:
    result = unchecked.quantize(residual_block(), (X,), backend=backends.get("x86", target="any"))
    lowered: GraphModule = result.backend.lowering(result.quantized).module
    assert lowered == graph_snapshot(name="lowered")
    assert Pipeline((FuseSums(),)).run(lowered) == graph_snapshot(name="fused")
