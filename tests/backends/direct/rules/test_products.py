"""Products of two activations: in integers where sums cannot saturate, else in float."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

import quantfx
from quantfx import Config, backends
from quantfx.backends.checks import targets
from quantfx.backends.direct.plans import translate
from quantfx.backends.direct.region import Region
from quantfx.backends.direct.rules import products
from quantfx.backends.direct.rules.shapes import Untranslatable
from quantfx.backends.direct.rules.translate import Translation
from quantfx.backends.direct.runtime.steps import Lookup, MatMul, Step
from quantfx.backends.direct.runtime.values import Value, layout_of
from quantfx.tools.models.seeded import seeded
from tests import unchecked
from tests.backends.direct.qdq_cases import (
    A,
    Draw,
    QParams,
    dequantize,
    make_graph,
    quantize,
    round_trip,
)

# Of 8 bits on the left. On the right of 7, so that no pair of products saturates on any CPU.
U8 = QParams(0.02, 131, 0, 255, torch.uint8)
S8 = QParams(0.02, -7, -128, 127, torch.int8)
U7 = QParams(0.03, 120, 64, 191, torch.uint8)
S7 = QParams(0.03, 5, -64, 63, torch.int8)
OUT = QParams(0.1, 100, 3, 250, torch.uint8)


def product(left: QParams, right: QParams, *, turned: bool, out: QParams | None) -> GraphModule:
    def build(model: Any, inputs: tuple[Any, ...]) -> list[Any]:
        a, b = round_trip(inputs[0], left), round_trip(inputs[1], right)
        y = A.mul.Tensor(A.matmul.default(a, A.transpose.int(b, -1, -2) if turned else b), 0.3)
        return [y if out is None else quantize(y, out)]

    return make_graph(Draw(0), 2, build)


def normal(*shapes: tuple[int, ...]) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


def steps_of(graph: GraphModule, inputs: tuple[Tensor, ...]) -> list[Step]:
    return translate(graph, [layout_of(x) for x in inputs]).steps


def multiplications(graph: GraphModule, inputs: tuple[Tensor, ...]) -> list[MatMul]:
    return [step for step in steps_of(graph, inputs) if isinstance(step, MatMul)]


def close(graph: GraphModule, inputs: tuple[Tensor, ...]) -> None:
    (found,), (expected,) = Region(graph)(*inputs), graph(*inputs)
    if expected.dtype.is_floating_point:
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    else:
        assert (found.int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize("out", [None, OUT], ids=["float", "int8"])
@pytest.mark.parametrize(("left", "right"), [(U8, U7), (S8, S7)], ids=["u8", "s8"])
@pytest.mark.parametrize(
    ("a", "b", "turned"),
    [
        ((2, 3, 5, 8), (2, 3, 7, 8), True),
        ((2, 3, 5, 7), (2, 3, 7, 8), False),
        ((2, 3, 17, 64), (2, 1, 33, 64), True),
        ((1, 3, 5, 8), (2, 3, 8, 1), False),
        ((4, 9), (1, 9), True),
        ((5, 8), (2, 8, 6), False),
    ],
    ids=str,
)
def test_is_within_one_step(
    a: Any, b: Any, turned: bool, left: QParams, right: QParams, out: QParams | None
) -> None:
    graph, inputs = product(left, right, turned=turned, out=out), normal(a, b)
    (step,) = multiplications(graph, inputs)
    assert step.source.is_integer
    assert step.weight.is_integer
    close(graph, inputs)


@pytest.mark.parametrize("left", [U8, S8], ids=["u8", "s8"])
def test_full_range_is_multiplied_in_float_where_sums_saturate(left: QParams) -> None:
    """As large as they get: 127 times 255, on neighbours."""
    graph = product(left, U8, turned=True, out=None)
    inputs = torch.full((2, 8, 16), 99.0), torch.full((2, 8, 16), 99.0)
    (step,) = multiplications(graph, inputs)
    assert step.source.is_integer == (not targets.host().saturates)
    close(graph, inputs)


def test_sums_of_32_bits_take_the_full_range(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, inputs = product(U8, U8, turned=True, out=OUT), normal((5, 8), (7, 8))
    for name, integer in (("avx2", False), ("avx512_vnni", True)):
        monkeypatch.setattr(products, "host", lambda name=name: targets.TARGETS[name])
        (step,) = multiplications(graph, inputs)
        assert step.source.is_integer == integer


def test_one_float_operand_is_multiplied_in_float() -> None:
    def build(model: Any, inputs: tuple[Any, ...]) -> list[Any]:
        return [quantize(A.matmul.default(round_trip(inputs[0], U8), inputs[1]), OUT)]

    graph, inputs = make_graph(Draw(0), 2, build), normal((2, 5, 8), (2, 8, 6))
    (step,) = multiplications(graph, inputs)
    assert not step.source.is_integer
    close(graph, inputs)


def test_heads_that_were_split() -> None:
    """Operands are columns of wider rows, as heads are."""

    def build(model: Any, inputs: tuple[Any, ...]) -> list[Any]:
        a, b = (
            A.transpose.int(A.view.default(round_trip(x, q), [2, -1, 4, 8]), 1, 2)
            for x, q in zip(inputs, (U8, U7), strict=True)
        )
        return [A.matmul.default(a, A.transpose.int(b, -1, -2))]

    graph, inputs = make_graph(Draw(0), 2, build), normal((2, 5, 32), (2, 9, 32))
    assert multiplications(graph, inputs)[0].source.is_integer
    close(graph, inputs)


def test_rows_that_overlap() -> None:
    """Windows of one row share memory, which a product of integers cannot read."""
    long = torch.randn(2, 4, 20, generator=torch.Generator().manual_seed(0))

    def build(model: Any, inputs: tuple[Any, ...]) -> list[Any]:
        a, b = (round_trip(x, q) for x, q in zip(inputs, (U8, U7), strict=True))
        return [A.matmul.default(a, A.transpose.int(b, -1, -2))]

    close(make_graph(Draw(0), 2, build), (long.unfold(2, 8, 3), long.unfold(2, 8, 2)))


def stored(kind: str, *shape: int) -> tuple[GraphModule, tuple[Tensor, ...]]:
    """Return the graph of a product by a stored tensor, of int8, u8 or floats."""
    draw = Draw(0)
    value = torch.randint(-64, 64, shape, generator=draw.generator)
    tensors = {"s8": value.to(torch.int8), "u8": (value + 128).to(torch.uint8), "f32": value * 0.03}
    draw.constant("y", tensors[kind])

    def build(model: Any, inputs: tuple[Any, ...]) -> list[Any]:
        a, b = round_trip(inputs[0], U8), model.y
        if kind != "f32":
            b = dequantize(b, S7 if kind == "s8" else U7)
        return [quantize(A.matmul.default(a, b), OUT)]

    return make_graph(draw, 1, build), normal((3, 5, 8))


@pytest.mark.parametrize("kind", ["s8", "u8", "f32"])
@pytest.mark.parametrize("shape", [(3, 8, 6), (8, 6)])
def test_a_stored_operand(kind: str, shape: tuple[int, ...]) -> None:
    graph, inputs = stored(kind, *shape)
    (step,) = multiplications(graph, inputs)
    assert step.source.is_integer == (kind != "f32")
    copies = [each for each in steps_of(graph, inputs) if isinstance(each, Lookup)]
    assert not copies, "a stored operand is turned to int8 once, not in each call"
    close(graph, inputs)


class Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.experts = nn.Linear(8, 8), nn.Parameter(torch.randn(3, 8, 6))

    def forward(self, x: Tensor) -> Tensor:
        return torch.bmm(self.linear(x), self.experts)


def with_experts() -> quantfx.Result:
    return unchecked.quantize(
        seeded(Experts),
        normal((3, 5, 8)),
        backend=backends.get("x86", kernels="direct"),
        config=Config().op("matmul", "static"),
    )


def test_a_refusal_about_a_stored_tensor_leaves_out_its_reader(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was in no region that could do without it, and so the pass never ended."""

    def refuse(self: Translation, node: Node) -> Value:
        raise Untranslatable(node, "a test says so")

    monkeypatch.setattr(Translation, "_stored", refuse)
    result = with_experts()
    outside = [str(node.target) for node in result.module.graph.nodes]
    assert sum("dequantize_per_tensor" in target for target in outside) == 1
    assert all(each.within(1, 1e-5) for each in result.compare_sites())


def test_batches_of_stored_matrices_are_quantized_on_request() -> None:
    result = with_experts()
    assert {site.kernel for site in result.report.sites} == {"direct.matmul"}
    assert all(each.within(1, 1e-5) for each in result.compare_sites())
