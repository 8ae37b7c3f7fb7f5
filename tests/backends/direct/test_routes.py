"""What else computes a region, and what a region is known by."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn

from quantfx import backends
from quantfx.backends.direct import routes
from quantfx.backends.direct.region import Region
from quantfx.backends.direct.routes import float_graph, region_key
from quantfx.backends.direct.runtime.values import layout_of
from tests import unchecked
from tests.backends.direct.qdq_cases import A, Draw, add_weight, make_graph, round_trip
from tests.backends.direct.test_region import residual
from tests.models.small import residual_block


def image() -> torch.Tensor:
    return torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def region_of(model: nn.Module, x: torch.Tensor) -> Region:
    backend = backends.get("x86")
    result = unchecked.quantize(model, (x,), calibration=[x], backend=backend, progress=False)
    (region,) = (each for each in result.module.modules() if isinstance(each, Region))
    return region


def test_without_rounding_the_graph_is_the_float_one() -> None:
    model, x = residual_block(), image()
    floats = float_graph(region_of(model, x).graph, [layout_of(x)])
    targets = [str(node.target) for node in floats.graph.nodes if node.op == "call_function"]
    assert targets
    assert not any("quantize" in each for each in targets)
    with torch.no_grad():
        (found,), expected = floats(x), model(x)
    assert 0 < (found - expected).norm() < 0.02 * expected.norm()  # the weights were rounded


def key_of(region: Region, *inputs: torch.Tensor) -> str:
    return region_key(region.graph, [layout_of(x) for x in inputs])


def test_a_region_is_known_by_its_operators_and_not_by_its_weights() -> None:
    x = image()
    key = key_of(region_of(residual_block(), x), x)
    other = residual_block()
    with torch.no_grad():
        for weight in other.parameters():
            weight.mul_(1.5)
    assert key_of(region_of(other, x), x) == key
    assert key_of(region_of(nn.Conv2d(4, 4, 3).eval(), x), x) != key


def test_a_region_is_known_by_the_layouts_of_its_inputs() -> None:
    region, x = residual(), torch.randn(2, 8, 8, 8)
    turned = x.to(memory_format=torch.channels_last)
    keys = {key_of(region, each) for each in (x, turned, x[:1], torch.randn(2, 8, 9, 9))}
    assert len(keys) == 4
    assert key_of(region, torch.zeros(2, 8, 8, 8)) == key_of(region, x)


def test_a_region_is_known_by_its_arguments() -> None:
    def convolution(padding: int, dilation: int) -> Region:
        draw = Draw(0)
        add_weight(draw, "w", 8, 8, 3, 3)

        def build(model: Any, inputs: tuple[Any, ...]) -> list[Any]:
            given = (model.weight("w"), None, [1, 1], [padding] * 2, [dilation] * 2)
            return [A.conv2d.default(round_trip(inputs[0], draw.qparams()), *given)]

        return Region(make_graph(draw, 1, build))

    x = torch.randn(1, 8, 6, 6)
    assert convolution(1, 1)(x)[0].shape == convolution(2, 2)(x)[0].shape
    assert key_of(convolution(1, 1), x) != key_of(convolution(2, 2), x)


def test_copies_are_known_by_the_same_name() -> None:
    x = image()
    region = region_of(residual_block(), x)
    for other in (copy.deepcopy(region), pickle.loads(pickle.dumps(region))):
        assert key_of(other, x) == key_of(region, x)


def test_another_torch_or_runtime_is_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    region, x = residual(), torch.randn(1, 8, 8, 8)
    key = key_of(region, x)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "9.0")
        assert key_of(region, x) != key
    monkeypatch.setattr(routes, "core_digest", lambda: "another")
    assert key_of(region, x) != key


def test_bfloat16_that_is_quantized_is_float32_behind() -> None:
    draw = Draw(0)
    add_weight(draw, "w", 4, 8)

    def build(model: Any, inputs: tuple[Any, ...]) -> list[Any]:
        return [A.linear.default(round_trip(inputs[0], draw.qparams()), model.weight("w"), None)]

    region, x = Region(make_graph(draw, 1, build)), torch.randn(3, 8).to(torch.bfloat16)
    (found,) = float_graph(region.graph, [layout_of(x)])(x)
    assert found.dtype == torch.float32
