from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quantfx.passes.errors import ContractError
from tests.refusals import refused
from tests.unchecked import capture, quantize


class Product(nn.Module):
    """``function(x, w, b)`` of two parameters."""

    def __init__(self, function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.w = nn.Parameter(torch.randn(8, 8, generator=generator))
        self.b = nn.Parameter(torch.randn(8, generator=generator))
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.w, self.b)


LINEARS: dict[str, tuple[tuple[int, ...], Callable[[Tensor, Tensor, Tensor], Tensor]]] = {
    "addmm": ((5, 8), lambda x, w, b: torch.addmm(b, x, w)),
    "addmm scaled": ((5, 8), lambda x, w, b: torch.addmm(b, x, w, beta=0.5, alpha=2)),
    "addmm without": ((5, 8), lambda x, w, b: torch.addmm(b * torch.nan, x, w, beta=0)),
    "addmm of rows": ((8, 8), lambda x, w, b: torch.addmm(x, x, w)),
    "addmm of one": ((5, 8), lambda x, w, b: torch.addmm(b[:1], x, w)),
    "mm": ((5, 8), lambda x, w, b: torch.mm(x, w)),
    "matmul": ((2, 5, 8), lambda x, w, b: x @ w),
    "matmul of T": ((2, 5, 8), lambda x, w, b: x @ w.T),
    "matmul of transpose": ((2, 5, 8), lambda x, w, b: x @ w.transpose(-1, 0) + b),
    "matmul of permute": ((2, 5, 8), lambda x, w, b: x @ w.permute(1, 0)),
    "matmul of a transpose that is none": ((2, 5, 8), lambda x, w, b: x @ w.transpose(0, -2)),
    "matmul of the same": ((2, 5, 8), lambda x, w, b: x @ w.permute(0, 1)),
    "matmul of computed": ((2, 5, 8), lambda x, w, b: x @ (w * b)),
    "mm from the left": ((8, 5), lambda x, w, b: torch.mm(w, x)),
    "matmul from the left": ((2, 8, 5), lambda x, w, b: w @ x),
    "matmul of T from the left": ((2, 8, 5), lambda x, w, b: w.T @ x),
    "einsum": ((2, 5, 8), lambda x, w, b: torch.einsum("bik,ko->bio", x, w)),
    "einsum of rows": ((5, 8), lambda x, w, b: torch.einsum("...k,ok", x, w)),
    "einsum of T": ((2, 5, 8), lambda x, w, b: torch.einsum("b i k, o k -> b i o", x, w)),
}


@pytest.mark.parametrize("name", LINEARS)
def test_products_by_stored_matrices_are_linears(name: str) -> None:
    shape, function = LINEARS[name]
    model, x = Product(function).eval(), torch.randn(shape)
    graph = capture(model, (x,))
    targets = [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]
    assert targets.count("aten.linear.default") == 1
    assert not {"aten.addmm.default", "aten.matmul.default", "aten.mm.default"} & {*targets}
    with torch.no_grad():
        torch.testing.assert_close(graph(x), model(x), rtol=1e-5, atol=1e-5)
        result = quantize(model, (x,), calibration=[x])
        assert [row.lowered for row in result.report.rows if row.kind == "linear"] == [1]
        error = (result.module(x) - model(x)).square().mean() / model(x).square().mean()
        assert error < 1e-3


MATMULS: dict[str, tuple[int, Callable[[Tensor, Tensor, Tensor], Tensor]]] = {
    "mm": (2, lambda a, x, y: torch.mm(x, y)),
    "bmm": (3, lambda a, x, y: torch.bmm(x, y)),
    "addmm": (2, lambda a, x, y: torch.addmm(a, x, y, beta=0.5, alpha=3)),
    "baddbmm": (3, lambda a, x, y: torch.baddbmm(a, x, y, beta=0.5, alpha=0.3)),
    "baddbmm without": (3, lambda a, x, y: torch.baddbmm(a * torch.nan, x, y, beta=0)),
    "einsum": (3, lambda a, x, y: torch.einsum("hik,hjk->hij", x, y)),
    "einsum of ellipses": (4, lambda a, x, y: torch.einsum("...ij,...jk->...ik", x, y)),
    "einsum of heads": (4, lambda a, x, y: torch.einsum("bhij,bhjk->bhik", x, y)),
}


class Matmul(nn.Module):
    def __init__(self, function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, a: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return self.function(a, x, y)


@pytest.mark.parametrize("name", MATMULS)
def test_products_of_what_is_computed_are_matmuls(name: str) -> None:
    dimensions, function = MATMULS[name]
    inputs = tuple(torch.randn([2, 3, 4, 4][-dimensions:]) for _ in range(3))
    model = Matmul(function).eval()
    graph = capture(model, inputs)
    targets = [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]
    assert targets.count("aten.matmul.default") == 1
    with torch.no_grad():
        torch.testing.assert_close(graph(*inputs), model(*inputs), rtol=1e-5, atol=1e-5)
    with refused("nothing-to-quantize", ContractError, site="matmul_default"):
        quantize(model, inputs, calibration=[inputs])


STAY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "outer": lambda x, y: torch.einsum("bik,bok->bkio", x, y),
    "twice": lambda x, y: torch.einsum("bii,bij->bij", x, y),
    "both sums": lambda x, y: torch.einsum("bik,bko->bi", x, y),
    "repeats": lambda x, y: torch.einsum("bik,bok->bio", x[..., :1], y),
    "integers": lambda x, y: torch.bmm(x.to(torch.int64), y.to(torch.int64)),
}


@pytest.mark.parametrize("name", STAY)
def test_other_products_stay(name: str) -> None:
    x = torch.randn(2, 4, 4)
    graph = capture(Pair(STAY[name]).eval(), (x, x + 1))
    assert not [node for node in graph.graph.nodes if "matmul" in str(node.target)]


class Pair(nn.Module):
    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.function(x, y)


@pytest.mark.parametrize("has_bias", [True, False])
def test_a_linear_by_a_vector_is_a_product(has_bias: bool) -> None:
    def function(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        y = F.linear(x, w, b)
        return y + (F.linear(x[0], w[0], b[0]) if has_bias else F.linear(x, w[0]))

    model, x = Product(function).eval(), torch.randn(8, 8)
    result = quantize(model, (x,), calibration=[x])
    assert [row.lowered for row in result.report.rows if row.kind == "linear"] == [1]
    with torch.no_grad():
        torch.testing.assert_close(capture(model, (x,))(x), model(x), rtol=1e-5, atol=1e-5)


def test_a_product_from_the_left_keeps_its_layout() -> None:
    model, x = Product(lambda x, w, b: w @ x).eval(), torch.randn(2, 8, 5)
    assert capture(model, (x,))(x).is_contiguous()


def test_the_sizes_of_a_product_stay_free() -> None:
    model = Product(LINEARS["matmul of T"][1]).eval()
    shapes = ({0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO},)
    graph = capture(model, (torch.randn(2, 5, 8),), dynamic_shapes=shapes)
    x = torch.randn(3, 7, 8)
    with torch.no_grad():
        torch.testing.assert_close(graph(x), model(x), rtol=1e-5, atol=1e-5)
