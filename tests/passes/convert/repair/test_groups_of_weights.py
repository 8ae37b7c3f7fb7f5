"""Weights with a scale for each group are rounded together as well, of 4 bits and of 8."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from quantfx import Config, Result, backends
from quantfx.passes.graph.graphs import constant
from quantfx.passes.observers.fake_quantize import fake_quantized
from quantfx.passes.quant.qdq import DEQUANTIZE_GROUPS
from quantfx.passes.quant.qparams import QParams
from quantfx.passes.quant.spec import QuantSpec
from quantfx.tools.measure.metrics import sqnr_db
from tests import unchecked

INT4 = Config("weight-only-4bit")
INT8 = Config("weight-only").weights(group=32)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 32, bias=False)).eval()


def rows(count: int, seed: int) -> Tensor:
    """Return rows whose values vary together."""
    draw = torch.Generator().manual_seed(seed)
    mixed = torch.randn(8, 64, generator=torch.Generator().manual_seed(1))
    return torch.randn(count, 8, generator=draw) @ mixed + 0.3 * torch.randn(
        count, 64, generator=draw
    )


def quantized(config: Config, *, repair: bool | None) -> Result:
    backend = backends.get("x86", repair=repair).with_config(config)
    data = list(torch.split(rows(256, 2), 32))
    return unchecked.quantize(network(), (data[0],), backend=backend, calibration=data)


@pytest.mark.parametrize(
    "config", [INT4, INT4.weights(group=64).module("2", None)], ids=["32", "64"]
)
@pytest.mark.parametrize("repair", [None, True])
def test_outputs_err_less_with_the_same_scales(config: Config, repair: bool | None) -> None:
    plain, repaired = quantized(config, repair=False), quantized(config, repair=repair)
    held = rows(512, 3)
    with torch.no_grad():
        exact = network()(held)
        before, after = (sqnr_db(exact, each.quantized(held)) for each in (plain, repaired))
        assert after > before + 2
        torch.testing.assert_close(
            repaired.module(held), repaired.quantized(held), rtol=1e-5, atol=1e-5
        )
    scales = [_scales(each) for each in (plain, repaired)]
    assert len(scales[0]) == (1 if config != INT4 else 2)
    assert all(map(torch.equal, *scales))


def _scales(result: Result) -> list[Tensor]:
    module = result.quantized
    found = module.graph.find_nodes(op="call_function", target=DEQUANTIZE_GROUPS)
    scales = [constant(module, node.args[1]) for node in found]
    return [each for each in scales if each is not None]


def test_groups_of_8_bits_are_repaired_too() -> None:
    plain, repaired = quantized(INT8, repair=False), quantized(INT8, repair=None)
    held = rows(512, 3)
    with torch.no_grad():
        exact = network()(held)
        before, after = (sqnr_db(exact, each.quantized(held)) for each in (plain, repaired))
    assert after > before + 2
    assert all(map(torch.equal, *map(_scales, (plain, repaired))))


def test_a_group_is_rounded_by_its_own_scale() -> None:
    spec = QuantSpec(torch.int8, -8, 7, symmetric=True, axis=0, observer="min_max", group=2)
    scale = torch.tensor([[1.0, 0.1], [0.5, 2.0]])
    qparams = QParams(scale, torch.zeros(2, 2, dtype=torch.int64), spec)
    x = torch.tensor([[1.4, 9.0, 0.26, -0.9], [0.8, -0.3, 2.9, 100.0]])
    expected = torch.tensor([[1.0, 7.0, 0.3, -0.8], [1.0, -0.5, 2.0, 14.0]])
    torch.testing.assert_close(fake_quantized(x, qparams), expected)
