"""Models in half precision: int8 with float32 around, in and out as before, stored as before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import quantfx
from quantfx.passes.errors import ContractError, InputError
from quantfx.passes.pipeline.record import records_of
from quantfx.tools.models.seeded import seeded
from tests import unchecked
from tests.refusals import refused
from tests.unchecked import quantize

HALF = (torch.bfloat16, torch.float16)


class Encoder(nn.Module):
    """A table, a layer of attention with a mask made here, and a head that is tied to the table."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(64, 16)
        self.norm = nn.LayerNorm(16)
        self.mix = nn.Linear(16, 16)
        self.head = nn.Linear(16, 64, bias=False)
        self.head.weight = self.table.weight

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        x = self.norm(self.table(tokens))
        scores = x @ x.transpose(-1, -2)
        causal = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        mask = torch.zeros(scores.shape[-2:], dtype=x.dtype).masked_fill(causal, -1e4)
        x = self.mix((scores + mask).softmax(-1).to(x.dtype) @ x)
        return self.head(x), x


TOKENS = torch.arange(10).reshape(2, 5)


def ratio(expected: Tensor, given: Tensor) -> float:
    signal, noise = expected.double().square().sum(), (expected.double() - given.double()).square()
    return float(10 * torch.log10(signal / noise.sum()))


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("backend", ["x86", "native", "xpu"])
def test_a_network_in_half_precision_is_int8(dtype: torch.dtype, backend: str) -> None:
    layers = lambda: nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))  # noqa: E731
    wide, x = seeded(layers), torch.randn(16, 8)
    with torch.no_grad():
        expected = wide(x)
        result = quantize(
            wide.to(dtype), (x.to(dtype),), calibration=[x.to(dtype)], backend=backend
        )
        given = result.quantized(x.to(dtype))
    assert [row.lowered for row in result.report.rows if row.kind == "linear"] == [2]
    assert given.dtype == dtype
    assert ratio(expected, given) > 30


def test_tables_and_tied_weights_stay_half_and_tied_in_memory_and_on_file(tmp_path: Path) -> None:
    model = seeded(lambda: Encoder().eval()).to(torch.bfloat16)
    config = quantfx.Config().module("head", None)
    result = unchecked.quantize(model, (TOKENS,), config=config)
    result.save(tmp_path / "model.quantfx")
    for found in (result, quantfx.load(tmp_path / "model.quantfx")):
        tables = [t for t in found.quantized.state_dict().values() if t.numel() == 64 * 16]
        assert {table.dtype for table in tables} == {torch.bfloat16}
        assert len({table.untyped_storage().data_ptr() for table in tables}) == 1
        with torch.no_grad():
            for expected, given in zip(model(TOKENS), found.module(TOKENS), strict=True):
                assert given.dtype == torch.bfloat16
                assert ratio(expected, given) > 28


def test_parts_of_tables_stay_half() -> None:
    model, tokens = seeded(lambda: Positions().eval()).bfloat16(), torch.arange(10).reshape(2, 5)
    result = quantize(model, (tokens,), calibration=[tokens])
    kept = {name: each.dtype for name, each in result.quantized.state_dict().items()}
    assert kept["positions_folded"] == torch.bfloat16
    with torch.no_grad():
        assert ratio(model(tokens), result.module(tokens)) > 30


class Positions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(64, 16)
        self.positions = nn.Parameter(torch.randn(32, 16))
        self.head = nn.Linear(16, 8)

    def forward(self, tokens: Tensor) -> Tensor:
        y: Tensor = self.head(self.table(tokens) + self.positions[: tokens.shape[1]])
        return y


@pytest.mark.parametrize(
    ("make", "config", "tensor"),
    [
        (lambda: nn.LSTM(8, 4, batch_first=True), "dynamic", torch.randn(2, 3, 8).bfloat16()),
        (lambda: nn.Sequential(nn.Embedding(16, 8)), "weight-only", torch.arange(8)),
    ],
)
def test_what_a_kernel_packs_is_not_narrowed(
    make: Callable[[], nn.Module], config: str, tensor: Tensor
) -> None:
    model = seeded(lambda: make().eval()).bfloat16()
    result = quantize(model, (tensor,), backend="native", config=config)
    assert [row.lowered for row in result.report.rows] == [1]
    with torch.no_grad():
        expected, given = tree_leaves(model(tensor)), tree_leaves(result.module(tensor))
    assert all(ratio(*pair) > 25 for pair in zip(expected, given, strict=True))


@pytest.mark.sweep
def test_it_compiles() -> None:
    model = seeded(lambda: Encoder().eval()).to(torch.bfloat16)
    result = quantize(model, (TOKENS,), calibration=[(TOKENS,)])
    compiled = result.compile()
    with torch.no_grad():
        for expected, given in zip(result.quantized(TOKENS), compiled(TOKENS), strict=True):
            assert given.dtype == torch.bfloat16
            assert ratio(expected, given) > 28


def test_inputs_of_another_precision_are_refused() -> None:
    model, x = nn.Linear(8, 4).eval().to(torch.bfloat16), torch.randn(4, 8, dtype=torch.bfloat16)
    result = quantfx.quantize(model, (x,), calibration=[x])
    with refused("input-shape", InputError, site="input", fix="bfloat16"):
        result.module(x.float())


class Bits(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).view(torch.int16)


class Cache(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.last = nn.Buffer(torch.zeros(4, 8))

    def forward(self, x: Tensor) -> Tensor:
        self.last.copy_(self.layer(x))
        return self.last + 1


@pytest.mark.parametrize(("make", "reason"), [(Bits, "reads the bits"), (Cache, "writes to last")])
def test_what_cannot_be_widened_is_left_alone_with_the_reason(
    make: type[nn.Module], reason: str
) -> None:
    model, x = make().eval().to(torch.bfloat16), torch.randn(4, 8, dtype=torch.bfloat16)
    with refused("nothing-to-quantize", ContractError, site="linear") as told:
        quantfx.quantize(model, (x,), calibration=[x])
    assert reason in str(told.value)


def test_a_model_in_float32_is_left_as_it_is() -> None:
    x = torch.randn(4, 8)
    result = quantize(nn.Linear(8, 4).eval(), (x,), calibration=[x])
    names = {record.name: record.changed for record in records_of(result.quantized)}
    assert names["compute-in-float32"] is names["store-in-half"] is False
