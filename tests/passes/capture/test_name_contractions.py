from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.unchecked import capture, quantize

X = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))


class Contraction(nn.Module):
    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], *shape: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(1)))
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.w)


LINEARS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], tuple[int, ...]]] = {
    "einsum": (lambda x, w: torch.einsum("bik,ko->bio", x, w), (8, 5)),
    "einsum of rows": (lambda x, w: torch.einsum("b i k, o k -> b i o", x, w), (5, 8)),
    "weight first": (lambda x, w: torch.einsum("ok,bik->bio", w, x), (5, 8)),
    "heads": (lambda x, w: torch.einsum("bld,dhk->blhk", x, w), (8, 2, 4)),
    "heads in another order": (lambda x, w: torch.einsum("bld,hdk->blkh", x, w), (2, 8, 4)),
    "out of heads": (lambda x, w: torch.einsum("blhk,hkd->bld", x.reshape(2, 3, 2, 4), w), (2, 4, 5)),
    "out of turned heads": (
        lambda x, w: torch.einsum("blhk,khd->bld", x.reshape(2, 3, 2, 4), w),
        (4, 2, 5),
    ),
    "to numbers": (lambda x, w: torch.einsum("bik,k->bi", x, w), (8,)),
    "tensordot": (lambda x, w: torch.tensordot(x, w, dims=1), (8, 5)),
    "tensordot of two": (lambda x, w: torch.tensordot(x, w, dims=([1, 2], [1, 2])), (5, 3, 8)),
    "inner": (torch.inner, (5, 8)),
    "ellipsis": (lambda x, w: torch.einsum("...k,ko->...o", x, w), (8, 5)),
    "ellipsis of one": (lambda x, w: torch.einsum("b...k,hok->b...ho", x, w), (2, 5, 8)),
    "result left out": (lambda x, w: torch.einsum("bik,ok", x, w.T), (8, 5)),
}  # fmt: skip
STAY: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], tuple[int, ...]]] = {
    "sums over the middle": (lambda x, w: torch.einsum("bik,io->bko", x, w), (3, 5)),
    "by batches": (lambda x, w: torch.einsum("bik,bko->bio", x, w), (2, 8, 5)),
    "diagonal": (lambda x, w: torch.einsum("bik,kk->bi", x, w), (8, 8)),
    "outer": (lambda x, w: torch.einsum("bik,o->biko", x, w), (5,)),
    "turned result": (lambda x, w: torch.einsum("bik,ko->boi", x, w), (8, 5)),
    "turned result left out": (lambda x, w: torch.einsum("bzk,ko", x, w), (8, 5)),
    "sums over the weight alone": (lambda x, w: torch.einsum("bik,ko->bi", x, w), (8, 5)),
    "sums over rows as well": (lambda x, w: torch.einsum("bik,ko->bo", x, w), (8, 5)),
    "repeats the weight": (lambda x, w: torch.einsum("bik,ok->bio", x, w), (5, 1)),
    "repeats a head": (
        lambda x, w: torch.einsum("blhk,hkd->bld", x.reshape(2, 3, 2, 4), w),
        (1, 4, 5),
    ),
    "tensordot that repeats": (lambda x, w: torch.tensordot(x, w, dims=([2], [1])), (5, 1)),
    "tensordot of all": (lambda x, w: torch.tensordot(x, w, dims=3), (2, 3, 8)),
    "inner of vectors": (lambda x, w: torch.inner(x[0, 0], w), (8,)),
    "inner with a number": (torch.inner, ()),
}


@pytest.mark.parametrize("name", [*LINEARS, *STAY])
def test_contractions_with_a_stored_tensor_are_linears(name: str) -> None:
    function, shape = (LINEARS | STAY)[name]
    model = Contraction(function, *shape).eval()
    graph = capture(model, (X,))
    targets = [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]
    assert targets.count("aten.linear.default") == (name in LINEARS)
    with torch.no_grad():
        torch.testing.assert_close(graph(X), model(X), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["heads", "out of turned heads", "tensordot of two"])
def test_they_are_quantized(name: str) -> None:
    function, shape = LINEARS[name]
    model = Contraction(function, *shape).eval()
    result = quantize(model, (X,), calibration=[X])
    assert [row.lowered for row in result.report.rows if row.kind == "linear"] == [1]
    with torch.no_grad():
        error = (result.module(X) - model(X)).square().mean() / model(X).square().mean()
    assert error < 1e-3


def test_sizes_stay_free() -> None:
    model = Contraction(LINEARS["heads"][0], 8, 2, 4).eval()
    graph = capture(model, (X,), dynamic_shapes=({1: torch.export.Dim.AUTO},))
    x = torch.randn(2, 7, 8)
    with torch.no_grad():
        torch.testing.assert_close(graph(x), model(x), rtol=1e-5, atol=1e-5)
