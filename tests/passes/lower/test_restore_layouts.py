"""Operators that read memory, behind kernels whose results are laid out otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import quantfx
from quantfx import backends
from quantfx.passes.pipeline.record import records_of
from quantfx.passes.quant.qdq import QUANTIZE_PER_TENSOR
from quantfx.patterns.schema import argument_value
from quantfx.tools.models.seeded import seeded
from tests import unchecked

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LAST = X.to(memory_format=torch.channels_last)
FREE = {"x": {0: torch.export.Dim.AUTO}}
Body = Callable[[Tensor], Any]


class Net(nn.Module):
    def __init__(self, body: Body) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.body = body

    def forward(self, x: Tensor) -> Any:
        return self.body(torch.relu(self.conv(x)))


@torch.library.custom_op("quantfx_test::memory", mutates_args=())
def memory(x: Tensor) -> Tensor:
    """Return the values in the order of memory, as an operator of a user may."""
    return x.as_strided((x.numel(),), (1,)).clone()


@memory.register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty(x.numel())


def written_through_a_reshape(y: Tensor) -> Tensor:
    y.reshape(2, -1).add_(1.0)
    return y


def written_through_a_view(y: Tensor) -> Tensor:
    y.view(2, -1)[:, :3] += 1.0
    return y * 2


def written_through_a_flatten(y: Tensor) -> tuple[Tensor, Tensor]:
    y.flatten(1).mul_(2)
    return y, y.sum()


STRIDED: dict[str, Body] = {
    "windows": lambda y: y.as_strided((2, 8, 6, 3, 8), (512, 64, 8, 8, 1)),
    "beyond a chunk": lambda y: y.chunk(2, 1)[0].as_strided((2, 4, 64), (512, 64, 1)),
    "beyond a slice": lambda y: y[:, 2:].as_strided((2, 4, 64), (512, 64, 1)),
    "permuted": lambda y: y.permute(0, 2, 3, 1).abs().as_strided((2, 64, 8), (512, 8, 1)),
    "integers": lambda y: y.view(torch.int16)[..., 1::2].float(),
    "complex": lambda y: torch.view_as_complex(y.view(2, 8, 8, 4, 2)).abs(),
    "of a user": memory,
    "written through a reshape": written_through_a_reshape,
    "written through a view": written_through_a_view,
    "written through a flatten": written_through_a_flatten,
}
VIEWS: dict[str, Body] = {
    "view": lambda y: y.view(y.shape[0], -1),
    "contiguous": lambda y: y.contiguous().view(y.shape[0], -1),
    "view_as": lambda y: y.view_as(y.reshape(-1, 64, 8)),
    "max pool": lambda y: F.max_pool2d(y, 2).view(y.shape[0], -1),
    "mean pool": lambda y: F.adaptive_avg_pool2d(y, 2).view(y.shape[0], -1),
    "twice": lambda y: y.chunk(2, 1)[1].view(-1, 2, 128),
}


def model(body: Body) -> Net:
    torch.manual_seed(0)
    return Net(body).eval()


def quantized(body: Body, backend: str, x: Tensor = X, **options: Any) -> quantfx.Result:
    return unchecked.quantize(model(body), (x,), backend=backend, **options)


def agrees(run: Callable[..., Any], result: quantfx.Result, x: Tensor) -> None:
    """Hold a lowered graph against the q/dq graph: one step apart at most."""
    with torch.no_grad():
        ours, wanted = run(x.clone()), result.quantized(x.clone())
    ours, wanted = (each if isinstance(each, tuple) else (each,) for each in (ours, wanted))
    for one, other in zip(ours, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1.01 * step(result), rtol=1e-5)


def step(result: quantfx.Result) -> float:
    """Return the largest scale that something is rounded to."""
    rounds = result.quantized.graph.find_nodes(op="call_function", target=QUANTIZE_PER_TENSOR)
    return max(float(argument_value(node, "scale")) for node in rounds)


@pytest.mark.parametrize("backend", ["x86", "native"])
@pytest.mark.parametrize("case", STRIDED)
def test_memory_holds_what_the_graph_had_there(case: str, backend: str) -> None:
    result = quantized(STRIDED[case], backend)
    agrees(result.module, result, X)
    with torch.no_grad():
        ours, theirs = result.quantized(X), model(STRIDED[case])(X)
    if case != "integers":  # whose bits are far apart where values are near
        ours, theirs = (each[0] if isinstance(each, tuple) else each for each in (ours, theirs))
        assert (ours - theirs).abs().max() < 0.05 * theirs.abs().max()


@pytest.mark.parametrize(
    "case",
    ["windows", "written through a reshape"]
    + [
        pytest.param(case, marks=pytest.mark.sweep)
        for case in ("of a user", "beyond a slice", "permuted")
    ],
)
def test_compiled_memory_holds_it_too(case: str) -> None:
    result = quantized(STRIDED[case], "x86")
    agrees(result.compile(), result, X)


def test_a_layout_of_the_capture_is_kept_whichever_it_is() -> None:
    result = quantized(lambda y: y.as_strided((2, 64, 8), (512, 8, 1)), "native", LAST)
    agrees(result.module, result, LAST)


@pytest.mark.parametrize("backend", ["x86", "native"])
@pytest.mark.parametrize("case", VIEWS)
def test_views_work_in_every_layout_at_every_size(case: str, backend: str) -> None:
    result = quantized(VIEWS[case], backend, dynamic_shapes=FREE)
    wider = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    for x in (X, LAST, wider, wider.to(memory_format=torch.channels_last), wider[::2]):
        agrees(result.module, result, x)


# In CI plans run the same: tests/backends/direct/test_lowering_again.py.
@pytest.mark.sweep
@pytest.mark.parametrize("wrapper", ["python", "cpp"])
def test_compiled_views_work_in_every_layout(wrapper: Any) -> None:
    result = quantized(VIEWS["max pool"], "x86", dynamic_shapes=FREE)
    run = result.compile(wrapper=wrapper)
    for x in (X, LAST, torch.cat([X, X]).to(memory_format=torch.channels_last)):
        agrees(run, result, x)


def test_views_are_lowered_from_foreign_graphs() -> None:
    result = quantized(VIEWS["view"], "x86")
    torch.compiler.reset()
    agrees(torch.compile(result.quantized, backend="quantfx_lower"), result, X)


def test_nothing_is_laid_out_where_nothing_reads_memory() -> None:
    for body, count in ((VIEWS["view"], 0), (STRIDED["windows"], 1)):
        [record] = [
            each
            for each in records_of(quantized(body, "x86").module)
            if each.name == "restore-layouts"
        ]
        assert record.stats == {"restored": count}


def test_memory_of_float_operators_is_left_alone() -> None:
    def body(x: Tensor) -> Tensor:
        return (x + 1).as_strided((2, 192), (192, 1))

    class Beside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.linear(x), body(x)

    # Unchecked: as it reads memory, the graph is held to the layout of its example otherwise.
    result = quantfx.quantize(Beside().eval(), (X,), calibration=[X], check_inputs=False)
    with torch.no_grad():
        torch.testing.assert_close(result.module(LAST)[1], body(LAST))


class WrittenThroughView(nn.Module):
    """A strict view whose memory the model writes to, by an operator that becomes int8."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        pooled = F.max_pool2d(self.conv(x), 2)
        rows = pooled.view(pooled.shape[0], -1)
        return rows.tanh(), rows.mul_(rows.tanh())


@pytest.mark.parametrize("kernels", ["onednn", "auto"])
def test_a_view_that_is_written_to_no_more_is_still_a_view(kernels: str) -> None:
    model, x = seeded(WrittenThroughView), torch.randn(2, 4, 8, 8)
    result = unchecked.quantize(model, (x,), backend=backends.get("x86", kernels=kernels))
    assert result.quantized.graph.find_nodes(op="call_function", target=torch.ops.aten.view.default)
    with torch.no_grad():
        expected = result.quantized(x)
        for found, each, exact in zip(result.module(x), expected, model(x), strict=True):
            torch.testing.assert_close(found, each, atol=1e-5, rtol=0)
            torch.testing.assert_close(each, exact, atol=0.05, rtol=0)
