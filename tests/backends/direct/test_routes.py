"""What else computes a region, and what a region is known by."""

from __future__ import annotations

import torch
from torch import nn

from quantfx import backends
from quantfx.backends.direct.region import Region
from quantfx.backends.direct.routes import float_graph, region_key
from tests import unchecked
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
    floats = float_graph(region_of(model, x).graph)
    targets = [str(node.target) for node in floats.graph.nodes if node.op == "call_function"]
    assert targets
    assert not any("quantize" in each for each in targets)
    with torch.no_grad():
        (found,), expected = floats(x), model(x)
    assert 0 < (found - expected).norm() < 0.02 * expected.norm()  # the weights were rounded


def test_a_region_is_known_by_its_operators_and_shapes() -> None:
    region = region_of(residual_block(), image())
    key = region_key(region.graph)
    other = residual_block()
    with torch.no_grad():
        for weight in other.parameters():
            weight.mul_(1.5)
    assert region_key(region_of(other, image()).graph) == key
    larger = torch.randn(1, 4, 9, 9)
    assert region_key(region_of(residual_block(), larger).graph) != key
    assert region_key(region_of(nn.Conv2d(4, 4, 3).eval(), image()).graph) != key
