"""Through Dynamo and through export: the same graph, the same ranges, the same bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import quantfx
from quantfx.backends.checks.targets import has_bfloat16
from quantfx.tools.bench.workload import load_workload
from quantfx.tools.models.bert import BertConfig, bert, bert_inputs
from quantfx.tools.models.mobilenet_v2 import InvertedResidual, conv_bn_relu6
from quantfx.tools.models.resnet import resnet18
from quantfx.tools.models.seeded import seeded
from tests import unchecked
from tests.dynamo.models import Convolutions, Mlp, compiled

Inputs = tuple[Tensor, ...]


def images(count: int, size: int) -> list[Inputs]:
    return [(torch.randn(2, 3, size, size),) for _ in range(count)]


def mlp() -> tuple[nn.Module, list[Inputs]]:
    return Mlp().eval(), [(torch.randn(4, 32),) for _ in range(4)]


def residual() -> tuple[nn.Module, list[Inputs]]:
    return seeded(Convolutions), images(4, 8)


def mobile() -> tuple[nn.Module, list[Inputs]]:
    def make() -> nn.Module:
        return nn.Sequential(
            conv_bn_relu6(3, 16, 3, stride=2),
            InvertedResidual(16, 16, stride=1, expansion=4),
            nn.Hardswish(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(16, 8),
        )

    return seeded(make), images(4, 16)


def encoder() -> tuple[nn.Module, list[Inputs]]:
    config = BertConfig(layers=1, hidden=32, heads=2, vocabulary=100)
    model = seeded(lambda: bert(config))
    return model, [bert_inputs(config, batch=2, seed=i) for i in range(4)]


def leaves(value: Any) -> list[Tensor]:
    return list(torch.utils._pytree.tree_leaves(value))


def differences(one: Any, other: Any) -> float:
    pairs = zip(leaves(one), leaves(other), strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs)


@pytest.mark.parametrize(
    "make",
    [
        mlp,
        *(pytest.param(make, marks=pytest.mark.sweep) for make in (mobile, residual, encoder)),
    ],
)
def test_small_networks(make: Callable[[], tuple[nn.Module, list[Inputs]]]) -> None:
    model, data = make()
    check(model, data[0], data[:3], data[3:])


def check(model: nn.Module, example: Inputs, data: list[Inputs], others: list[Inputs]) -> None:
    exported = unchecked.quantize(model, example, calibration=data)
    expected = exported.compile()
    wrapper = quantfx.auto(model, calibration_batches=len(data))
    online, state = compiled(model, "quantfx_x86", len(data))
    with torch.no_grad():
        for batch in data:
            assert differences(wrapper(*batch), model(*batch)) == 0
            assert differences(online(*batch), model(*batch)) == 0
        for batch in (*others, *data):
            assert differences(wrapper(*batch), expected(*batch)) == 0
            assert differences(online(*batch), expected(*batch)) == 0
    for report in (wrapper.report, state.report):
        assert report.planned == report.compiled == exported.report.planned
        rows = report.graphs[0].report
        assert rows is not None
        assert [row.compiled_kernels for row in rows.rows] == [
            row.compiled_kernels for row in exported.report.rows
        ]


@pytest.mark.sweep
@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet50", "bert"])
def test_large_networks(name: str) -> None:
    workload = load_workload(name)
    check(workload.model, workload.example, list(workload.calibration[:3]), list(workload.test[:2]))


@pytest.mark.sweep
def test_resnet18() -> None:
    data = images(4, 64)
    check(seeded(resnet18), data[0], data[:3], data[3:])


def test_autocast_computes_in_bfloat16_between_the_kernels() -> None:
    if not has_bfloat16():
        pytest.skip("bfloat16 in hardware only")
    model, data = mlp()
    expected = unchecked.quantize(model, data[0], calibration=data[:3]).compile(
        autocast=torch.bfloat16
    )
    online, _ = compiled(model, "quantfx_x86", 3)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for batch in data[:3]:
            online(*batch)
        result = online(*data[3])
    assert result.dtype == torch.bfloat16
    assert torch.equal(result, expected(*data[3]))
