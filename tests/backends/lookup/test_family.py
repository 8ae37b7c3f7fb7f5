from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from syrupy.assertion import SnapshotAssertion
from torch import Tensor, nn
from torch.export import Dim

import quantfx
from quantfx.backends.lookup.family import EMBEDDING
from quantfx.passes.quant.spec import QuantSpec
from quantfx.patterns.template import Mode
from quantfx.tools.models.seeded import seeded
from tests import unchecked
from tests.refusals import refused

ROWS, WIDTH = 40, 9
MODES: tuple[Mode, Mode] = ("weight-only", "weight-only-4bit")
INDICES = torch.tensor([3, 0, 39, 3, 7, 7, 12, 1, 2, 30])
OFFSETS = torch.tensor([0, 3, 3, 9])
# Half a step of the largest value, in 8 and 4 bits, and what adds up in a bag of six.
NEAR = {"weight-only": 0.015, "weight-only-4bit": 0.25}


class Bag(nn.Module):
    """A bag, with a weight for each sample if it has any."""

    def __init__(self, **how: Any) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(ROWS, WIDTH, **how)

    def forward(self, indices: Tensor, offsets: Tensor, weights: Tensor | None = None) -> Tensor:
        return self.bag(indices, offsets, weights)


def by_hand(table: Tensor, bits: int) -> Tensor:
    """Round each row to a scale of its own that fits its largest value."""
    most = 2 ** (bits - 1) - 0.5
    scale = table.abs().amax(1, keepdim=True).clamp(min=1e-30) / most
    return (table / scale).round().clamp(-most - 0.5, most - 0.5) * scale


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_a_lookup_is_the_row_times_its_scale(mode: str, dtype: torch.dtype) -> None:
    model = seeded(lambda: nn.Embedding(ROWS, WIDTH, padding_idx=0))
    backend = quantfx.backends.get("x86", weight_observer="min_max")
    indices = INDICES.to(dtype).reshape(2, 5)
    result = unchecked.quantize(model, (indices,), config=mode, backend=backend)
    expected = by_hand(model.weight.detach(), 4 if mode.endswith("4bit") else 8)[indices]
    assert torch.allclose(result.module(indices), expected, atol=1e-6)
    assert torch.allclose(result.quantized(indices), expected, atol=1e-6)
    assert result.module(indices)[0, 1].eq(0).all(), "the padding is a row of zeros"


def test_a_table_takes_a_quarter_and_an_eighth(tmp_path: Path) -> None:
    model = seeded(lambda: nn.Embedding(500, 64))
    sizes: list[int] = []
    for mode in MODES:
        file = tmp_path / f"{mode}.quantfx"
        result = unchecked.quantize(model, (INDICES,), config=mode)
        result.save(file)
        assert quantfx.load(file).module(INDICES).equal(result.module(INDICES))
        sizes.append(sum(v.nbytes for v in result.module.state_dict().values() if v.dim() == 2))
    assert sizes == [500 * 64, 500 * 32]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("how", ["sum", "mean", "max"])
@pytest.mark.parametrize("padding", [None, 7])
def test_bags(how: str, mode: str, padding: int | None) -> None:
    model = seeded(lambda: Bag(mode=how, padding_idx=padding))
    inputs = (INDICES, OFFSETS)
    result = unchecked.quantize(model, inputs, config=mode)
    assert [site.kernel for site in result.report.sites] == [
        "rows.int4" if mode.endswith("4bit") else "rows.int8"
    ]
    lowered, expected = result.module(*inputs), model(*inputs)
    assert torch.allclose(lowered, result.quantized(*inputs), atol=1e-6)
    assert (lowered - expected).abs().max() < 6 * NEAR[mode]
    assert lowered[1].eq(0).all(), "an empty bag"


def test_weights_of_samples_and_a_last_offset() -> None:
    model = seeded(lambda: Bag(mode="sum", include_last_offset=True))
    inputs = (INDICES.int(), torch.tensor([0, 4, 10], dtype=torch.int32), torch.rand(10))
    result = unchecked.quantize(model, inputs)
    assert torch.allclose(result.module(*inputs), result.quantized(*inputs), atol=1e-6)
    assert (result.module(*inputs) - model(*inputs)).abs().max() < 6 * NEAR["weight-only"]


def test_any_number_of_samples_and_bags() -> None:
    model = seeded(lambda: Bag(mode="mean", padding_idx=2))
    shapes = {"indices": {0: Dim.AUTO}, "offsets": {0: Dim.AUTO}, "weights": None}
    result = unchecked.quantize(model, (INDICES, OFFSETS, None), dynamic_shapes=shapes)
    other = (torch.arange(23) % ROWS, torch.tensor([0, 10]), None)
    assert torch.allclose(result.module(*other), result.quantized(*other), atol=1e-6)


def test_it_compiles_to_a_loop() -> None:
    model = seeded(lambda: nn.Sequential(nn.Embedding(ROWS, 16), nn.Linear(16, 8)))
    config = quantfx.Config().op("embedding", "weight-only-4bit")
    result = unchecked.quantize(model, (INDICES,), config=config)
    assert torch.allclose(result.compile()(INDICES), result.module(INDICES), atol=1e-5)
    assert result.report.sites[0].compiled == "rows.int4"


def test_a_table_in_half_precision() -> None:
    model = seeded(lambda: nn.Embedding(ROWS, WIDTH)).bfloat16()
    result = unchecked.quantize(model, (INDICES,))
    assert result.module(INDICES).dtype == torch.bfloat16
    assert {v.dtype for v in result.module.state_dict().values() if v.dim() == 2} == {torch.int8}


def test_a_config_keeps_it_float() -> None:
    model = seeded(lambda: nn.Sequential(nn.Embedding(ROWS, 16), nn.Linear(16, 8)))
    config = quantfx.Config().op("embedding", None)
    result = unchecked.quantize(model, (INDICES,), config=config)
    assert [site.kind for site in result.report.sites] == ["linear"]


def test_rows_that_are_renormalized_stay_float() -> None:
    """``max_norm`` writes to the table in each call."""
    model = seeded(lambda: nn.Embedding(ROWS, WIDTH, max_norm=1.0))
    with refused("nothing-to-quantize", site="embedding_renorm_", says="weight is overwritten"):
        unchecked.quantize(model, (INDICES,))


def grouped(mode: Mode, group: int = 32) -> quantfx.Config:
    return quantfx.Config(mode).weights(group=group)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("group", [32, 64])
def test_a_group_is_a_row_of_a_longer_table(mode: Mode, group: int, tmp_path: Path) -> None:
    model = seeded(lambda: nn.Embedding(ROWS, 192))
    longer = nn.Embedding(ROWS * 192 // group, group).eval()
    longer.weight = nn.Parameter(model.weight.detach().reshape(-1, group))
    indices, every = INDICES.reshape(2, 5), torch.arange(len(longer.weight))
    result = unchecked.quantize(model, (indices,), config=grouped(mode, group))
    by_rows = unchecked.quantize(longer, (every,), config=mode).module(every)
    assert torch.equal(result.module(indices), by_rows.reshape(ROWS, 192)[indices])
    assert torch.allclose(result.quantized(indices), result.module(indices), atol=1e-6)
    values = [v for v in result.module.buffers() if v.dtype in (torch.int8, torch.uint8)]
    assert [each.nbytes for each in values] == [ROWS * (96 if mode.endswith("4bit") else 192)]
    result.save(tmp_path / "table.quantfx")
    assert quantfx.load(tmp_path / "table.quantfx").module(indices).equal(result.module(indices))
    # Of a group a scale of four bytes and a zero point of one.
    assert result.report.quantized_bytes == values[0].nbytes + ROWS * 192 // group * 5


@pytest.mark.parametrize("mode", MODES)
def test_bags_of_rows_in_groups(mode: Mode) -> None:
    model = seeded(lambda: nn.EmbeddingBag(ROWS, 64, mode="mean", padding_idx=7))
    shapes = {"input": {0: Dim.AUTO}, "offsets": {0: Dim.AUTO}}
    inputs = (INDICES, OFFSETS)
    result = unchecked.quantize(model, inputs, config=grouped(mode), dynamic_shapes=shapes)
    other = (torch.arange(23) % ROWS, torch.tensor([0, 10]))
    for given in (inputs, other):
        assert torch.allclose(result.module(*given), result.quantized(*given), atol=1e-6)
    assert result.report.sites[0].kernel == f"rows.int{4 if mode == MODES[1] else 8}"


@pytest.mark.parametrize("mode", [MODES[0], pytest.param(MODES[1], marks=pytest.mark.sweep)])
def test_groups_compile_to_a_loop(mode: Mode) -> None:
    model = seeded(lambda: nn.Sequential(nn.Embedding(ROWS, 64), nn.ReLU()))
    result = unchecked.quantize(model, (INDICES,), config=grouped(mode))
    assert torch.allclose(result.compile()(INDICES), result.module(INDICES), atol=1e-6)
    assert result.report.sites[0].compiled == result.report.sites[0].kernel


def test_a_half_precision_table_in_groups_keeps_its_dtype() -> None:
    model = seeded(lambda: nn.Embedding(ROWS, 64)).bfloat16()
    result = unchecked.quantize(model, (INDICES,), config=grouped(MODES[1]))
    assert result.module(INDICES).dtype == torch.bfloat16
    assert torch.equal(result.module(INDICES), result.quantized(INDICES))


def test_rows_that_are_no_whole_groups_stay_float() -> None:
    model = seeded(lambda: nn.Embedding(ROWS, WIDTH))
    with refused("nothing-to-quantize", site="embedding", says="do not divide into groups of 32"):
        unchecked.quantize(model, (INDICES,), config=grouped(MODES[1]))


def test_groups_with_zero_points_have_no_kernel() -> None:
    spec = QuantSpec(torch.int8, -8, 7, axis=0, observer="min_max", group=32)
    backend = quantfx.backends.get("x86").with_specs(embedding_weight_4bit=spec)
    model = seeded(lambda: nn.Embedding(ROWS, 64))
    with refused("no-kernel", site="embedding", says="has zero points"):
        assert unchecked.quantize(model, (INDICES,), config=MODES[1], backend=backend).module


def test_groups_are_drawn(graph_snapshot: SnapshotAssertion) -> None:
    model = seeded(lambda: nn.Embedding(ROWS, 64))
    result = unchecked.quantize(model, (INDICES,), config=grouped(MODES[1]))
    assert result.quantized == graph_snapshot(name="qdq")
    assert result.module == graph_snapshot(name="lowered")
    assert "s8[-8,7] symmetric per-channel(0) groups(32)" in str(result.explain("embedding"))


def test_only_rows_are_read(graph_snapshot: SnapshotAssertion) -> None:
    model = seeded(lambda: nn.Embedding(ROWS, WIDTH))
    result = unchecked.quantize(model, (INDICES,), config="weight-only-4bit")
    read = [n.args[0] for n in result.module.graph.nodes if n.target is EMBEDDING]
    assert [tuple(each.meta["val"].shape) for each in read] == [(ROWS, 5), (ROWS, 1)]
    assert result.module == graph_snapshot
