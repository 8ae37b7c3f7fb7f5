"""An add behind a linear's activation compiles, though Inductor's own patterns fail on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch._inductor.config
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule

import quantfx
from quantfx.backends.inductor.compile import CompiledModule
from quantfx.passes.lower.shield_adds import ShieldAdds
from quantfx.passes.pipeline.pipeline import Pipeline
from tests import unchecked
from tests.export_cases import Net

X = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
SHIELD = Pipeline((ShieldAdds(),))
BODIES: dict[str, Callable[..., Any]] = {
    "relu + y": lambda f, g, x: f(x).relu() + x.tanh(),
    "y + gelu": lambda f, g, x: x.tanh() + F.gelu(f(x)),
    "both": lambda f, g, x: f(x).relu() + F.gelu(g(x)),
    "relu + fused": lambda f, g, x: f(x).relu() + g(x),
    "relu + u8": lambda f, g, x: f(x).relu() + (x > 0).to(torch.uint8),
    "relu + bool": lambda f, g, x: f(x).relu() + (x > 0),
    "twice": lambda f, g, x: (y := f(x).relu()) + y,
    "add + relu + y": lambda f, g, x: (f(x) + x.tanh()).relu() + x.sigmoid(),
}


def quantized(body: Callable[..., Any]) -> quantfx.Result:
    torch.manual_seed(0)
    model = Net(body, nn.Linear(8, 8), nn.Linear(8, 8)).eval()
    return unchecked.quantize(model, (X,), calibration=[X], progress=False)


def subtractions(module: GraphModule) -> int:
    return Counter(str(n.target) for n in module.graph.nodes)["aten.sub.Tensor"]


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_the_float_is_the_same_to_the_last_bit(body: Callable[..., Any]) -> None:
    module = quantized(body).quantized
    shielded = SHIELD.run(module)
    assert subtractions(shielded) == 1
    assert torch.equal(shielded(X), module(X))


@pytest.mark.parametrize("body", [
    lambda f, g, x: f(x) + x.tanh(),
    lambda f, g, x: torch.add(f(x).relu(), x, alpha=2),
    lambda f, g, x: f(x).relu() + 1,
    lambda f, g, x: (y := f(x).relu()) + g(y),
    lambda f, g, x: x.relu() + x.tanh(),
], ids=["fused", "scaled", "scalar", "read twice", "no linear"])  # fmt: skip
def test_other_adds_are_left_alone(body: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    model = Net(lambda f, g, x: g(body(f, g, x)), nn.Linear(8, 8), nn.Linear(8, 8)).eval()
    module = unchecked.quantize(model, (X,), calibration=[X], progress=False).quantized
    assert subtractions(SHIELD.run(module)) == 0


def test_it_compiles() -> None:
    result = quantized(BODIES["relu + fused"])
    compiled = result.compile()
    assert result.report.lowered == 2
    torch.testing.assert_close(compiled(X), result.quantized(X), rtol=1e-4, atol=1e-5)


def test_torch_still_fails_without_it() -> None:
    """When this no longer raises, the pass can go."""
    module: Callable[[Tensor], Tensor] = CompiledModule(quantized(BODIES["relu + y"]).quantized)
    with pytest.raises(AssertionError):
        module(X)
