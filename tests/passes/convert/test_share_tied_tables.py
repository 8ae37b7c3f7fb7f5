from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import quantfx
from quantfx.passes.quant.qdq import DEQUANTIZE_PER_CHANNEL
from quantfx.tools.models.seeded import seeded
from tests import unchecked
from tests.unchecked import quantize

TOKENS = torch.arange(20).reshape(2, 10) * 3


class Tied(nn.Module):
    """A language model of one layer, whose head is its table."""

    def __init__(self, *, tied: bool = True) -> None:
        super().__init__()
        self.table = nn.Embedding(64, 16, padding_idx=0)
        self.mix = nn.Linear(16, 16)
        self.head = nn.Linear(16, 64, bias=False)
        if tied:
            self.head.weight = self.table.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(torch.tanh(self.mix(self.table(tokens))))


class Wide(nn.Module):
    """A head that is its table, of two groups a row."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(64, 64)
        self.head = nn.Linear(64, 64, bias=False)
        self.head.weight = self.table.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.table(tokens))


def tables(module: nn.Module) -> list[Tensor]:
    return [each for each in module.state_dict().values() if each.numel() == 64 * 16]


@pytest.mark.parametrize("config", ["static", "dynamic", "weight-only"])
def test_table_and_head_read_one_int8_tensor(config: str, tmp_path: Path) -> None:
    model = seeded(lambda: Tied().eval())
    result = unchecked.quantize(model, (TOKENS,), config=config)
    result.save(tmp_path / "model.quantfx")
    expected = model(TOKENS)
    for found in (result, quantfx.load(tmp_path / "model.quantfx")):
        assert [table.dtype for table in tables(found.quantized)] == [torch.int8]
        for given in (found.quantized(TOKENS), found.module(TOKENS)):
            noise = (given - expected).square().sum()
            assert 10 * torch.log10(expected.square().sum() / noise) > 28
    assert result.report.quantized_bytes < 0.5 * result.report.float_bytes


def test_it_compiles() -> None:
    result = quantize(seeded(lambda: Tied().eval()), (TOKENS,), calibration=[(TOKENS,)])
    given, expected = result.compile()(TOKENS), result.quantized(TOKENS)
    assert (given - expected).abs().max() < 0.02 * expected.abs().max()


def test_a_table_of_its_own_is_another_tensor() -> None:
    result = quantize(Tied(tied=False).eval(), (TOKENS,), calibration=[(TOKENS,)])
    assert [table.dtype for table in tables(result.quantized)] == [torch.int8, torch.int8]


@pytest.mark.parametrize(
    "config",
    [quantfx.Config().module("table", None), quantfx.Config(None).module("head", "static")],
)
def test_a_table_that_the_config_keeps_float_does(config: quantfx.Config) -> None:
    model = seeded(lambda: Tied().eval())
    result = quantize(model, (TOKENS,), calibration=[(TOKENS,)], config=config)
    assert {table.dtype for table in tables(result.quantized)} == {torch.float32, torch.int8}


def test_a_table_stays_float_if_its_head_does() -> None:
    """An int8 copy for the lookup alone would add to the model."""
    model = seeded(lambda: Tied().eval())
    config = quantfx.Config().module("head", None)
    result = quantize(model, (TOKENS,), calibration=[(TOKENS,)], config=config)
    assert [table.dtype for table in tables(result.quantized)] == [torch.float32]
    text = result.report.text(full=True)
    assert "reads the table in float" in " ".join(text.split())


def test_the_rows_have_the_scales_of_the_head() -> None:
    """On a CPU whose sums saturate those are bounded, and the table's own would not be."""
    model = seeded(lambda: Tied().eval())
    backend = quantfx.backends.get("x86", target="avx2")
    result = quantize(model, (TOKENS,), backend=backend, calibration=[(TOKENS,)])
    dequantizes = [
        node
        for node in result.quantized.graph.nodes
        if node.target is DEQUANTIZE_PER_CHANNEL and node.meta["val"].shape == (64, 16)
    ]
    assert len(dequantizes) == 2
    assert len({str(node.args) for node in dequantizes}) == 1


@pytest.mark.parametrize(("mode", "tables_"), [
    (quantfx.Config("weight-only").weights(group=32), True),
    (quantfx.Config("weight-only").op("linear", weight_only={"group": 32}), True),
    (quantfx.Config("weight-only-4bit"), True),
    (quantfx.Config("weight-only").op("embedding", embedding_weight={"group": 32}), False),
], ids=["groups", "a table by rows", "4 bits", "a head by rows"])  # fmt: skip
def test_a_table_reads_the_groups_of_its_head(
    mode: quantfx.Config, tables_: bool, tmp_path: Path
) -> None:
    model = seeded(lambda: Wide().eval())
    result = unchecked.quantize(model, (TOKENS,), config=mode)
    result.save(tmp_path / "model.quantfx")
    stored = [v for v in result.module.buffers() if v.dtype in (torch.int8, torch.uint8)]
    assert len(stored) == (1 if tables_ else 2)
    for found in (result, quantfx.load(tmp_path / "model.quantfx")):
        given, expected = found.module(TOKENS), found.quantized(TOKENS)
        torch.testing.assert_close(given, expected, rtol=1e-5, atol=1e-5)


def test_a_table_of_4_bits_is_on_its_own() -> None:
    model = seeded(lambda: Tied().eval())
    config = quantfx.Config().op("embedding", "weight-only-4bit")
    result = quantize(model, (TOKENS,), calibration=[(TOKENS,)], config=config)
    assert [table.dtype for table in tables(result.quantized)] == [torch.int8]
    packed = [v for v in result.quantized.state_dict().values() if v.dtype == torch.uint8]
    assert [tuple(each.shape) for each in packed] == [(64, 8)]
