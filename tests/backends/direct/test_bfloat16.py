"""bfloat16 at the edges of regions, where a graph casts to it or quantizes it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from quantfx import backends
from quantfx.backends.direct.plans import translate
from quantfx.backends.direct.region import Region
from quantfx.backends.direct.rules.shapes import Untranslatable
from quantfx.backends.direct.runtime.values import layout_of
from quantfx.backends.direct.taken import refusal
from tests import unchecked
from tests.backends.direct.qdq_cases import A, Draw, add_weight, make_graph, quantize, round_trip
from tests.backends.direct.test_edges import U8, seeded

HALF, FULL = torch.bfloat16, torch.float32


def linear(inputs: int, build: Any) -> Any:
    draw = Draw(0)
    add_weight(draw, "w", 8, 16)
    return make_graph(draw, inputs, build)


def same(graph: Any, *inputs: Tensor) -> None:
    """Rounded to bfloat16 from float32 that differs in its last bits: within one of its steps."""
    region = Region(graph)
    translate(region.graph, [layout_of(x) for x in inputs])  # not the graph itself, in float
    for found, expected in zip(region(*inputs), region.graph(*inputs), strict=True):
        assert found.dtype == expected.dtype
        if found.dtype.is_floating_point:
            torch.testing.assert_close(found, expected, rtol=2**-7, atol=1e-5)
            assert (found == expected).float().mean() > 0.99
        else:
            assert (found.int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize("turned", [False, True])
def test_results_and_inputs(turned: bool) -> None:
    def build(model: Any, inputs: tuple[Any, ...]) -> list[Any]:
        x = A.transpose.int(inputs[0], 0, 1) if turned else inputs[0]
        y = A.linear.default(round_trip(x, U8), model.weight("w"), None)
        return [A.to.dtype(y, HALF), quantize(A.relu.default(y), U8)]

    x = seeded(16, 16).to(HALF)
    same(linear(1, build), x)
    same(linear(1, build), x.t())


def test_rounding_in_between() -> None:
    def build(model: Any, inputs: tuple[Any, ...]) -> list[Any]:
        y = A.linear.default(round_trip(inputs[0], U8), model.weight("w"), None)
        half = A.to.dtype(y, HALF)
        other = A._to_copy.default(A.add.Tensor(y, 1.0), dtype=HALF)
        summed = A.add.Tensor(A.to.dtype(half, FULL), inputs[1])
        return [
            quantize(half, U8),
            summed,
            quantize(A.to.dtype(other, FULL), U8),
            quantize(other, U8),
        ]

    same(linear(2, build), seeded(5, 16), seeded(5, 8))


def test_integers_are_cast() -> None:
    def build(model: Any, inputs: tuple[Any, ...]) -> list[Any]:
        half = A.to.dtype(round_trip(inputs[0], U8), HALF)
        return [half, quantize(A.to.dtype(round_trip(inputs[1], U8), HALF), U8)]

    same(make_graph(Draw(0), 2, build), seeded(5, 16), seeded(5, 8))


def test_stored_numbers_are_float32() -> None:
    draw = Draw(0)
    draw.constant("c", seeded(4).to(HALF))

    def build(model: Any, inputs: tuple[Any, ...]) -> list[Any]:
        return [A.to.dtype(model.c, FULL)]

    with pytest.raises(Untranslatable, match="no step reads constants of torch.bfloat16"):
        translate(make_graph(draw, 1, build), [layout_of(seeded(4))])


def test_every_number_is_rounded_as_torch_does() -> None:
    def build(model: Any, inputs: tuple[Any, ...]) -> list[Any]:
        return [A.to.dtype(inputs[0], HALF)]

    inf = float("inf")
    bits = torch.arange(-(2**31), 2**31, 104729).to(torch.int32).view(FULL)
    x = torch.cat([bits, torch.tensor([inf, -inf, float("nan"), 3.4e38, 1e-45, -0.0])])
    found = Region(make_graph(Draw(0), 1, build))(x)[0]
    torch.testing.assert_close(found, x.to(HALF), rtol=0, atol=0, equal_nan=True)


class Casts(nn.Module):
    """Convolutions with a part in between that is in bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.sigmoid(self.first(x).to(HALF))
        out: Tensor = self.second(y.float()).to(HALF)
        return out


def test_what_is_computed_in_it_stays_outside() -> None:
    x = seeded(2, 3, 9, 9)
    backend = backends.get("x86", kernels="direct")
    result = unchecked.quantize(Casts().eval(), (x,), calibration=[(x,)], backend=backend)
    regions = [each for each in result.module.modules() if isinstance(each, Region)]
    assert len(regions) == 2
    (sigmoid,) = (node for node in result.module.graph.nodes if node.target is A.sigmoid.default)
    assert "is torch.bfloat16" in refusal(sigmoid)
    outputs = [
        node.args[0] for each in regions for node in each.graph.graph.find_nodes(op="output")
    ]
    assert [len(each) for each in outputs] == [1, 1]
    found, expected = result.module(x), result.quantized(x)
    assert found.dtype == HALF
    assert (found - expected).abs().max() < 0.05
