from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule

from quantfx.passes.fold.fold_constants import FoldConstants
from quantfx.passes.fold.fold_scales import FoldScales
from quantfx.passes.pipeline.pipeline import Pipeline
from quantfx.tools.models.seeded import seeded
from tests.unchecked import capture, prepare_qat, quantize

FOLD = Pipeline((FoldConstants(), FoldScales()))


class FrozenBatchNorm(nn.Module):
    """As in torchvision's detectors."""

    def __init__(self, channels: int, dimensions: int = 2) -> None:
        super().__init__()
        self.shape = (1, channels, *[1] * dimensions)
        for name in ("weight", "bias", "mean", "var"):
            self.register_buffer(name, torch.rand(channels) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        values = {name: buffer.reshape(self.shape) for name, buffer in self.named_buffers()}
        scale = values["weight"] * (values["var"] + 1e-5).rsqrt()
        return x * scale + (values["bias"] - values["mean"] * scale)


class Scaled(nn.Module):
    """``function(layer(x), values)`` of a stored tensor."""

    def __init__(
        self, layer: nn.Module, function: Callable[[Tensor, Tensor], Tensor], *shape: int
    ) -> None:
        super().__init__()
        self.layer, self.function = layer, function
        self.values = nn.Parameter(torch.rand(shape) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.layer(x), self.values)


def times(y: Tensor, values: Tensor) -> Tensor:
    return y * values


def plus(y: Tensor, values: Tensor) -> Tensor:
    return values + y


FOLDED: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "frozen": (
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), FrozenBatchNorm(8)),
        (2, 3, 9, 9),
    ),
    "frozen 1d": (lambda: nn.Sequential(nn.Conv1d(3, 8, 3), FrozenBatchNorm(8, 1)), (2, 3, 9)),
    "transposed": (
        lambda: nn.Sequential(nn.ConvTranspose2d(4, 8, 3, groups=2), FrozenBatchNorm(8)),
        (2, 4, 5, 5),
    ),
    "grouped": (
        lambda: nn.Sequential(nn.Conv2d(4, 8, 3, groups=2), FrozenBatchNorm(8)),
        (2, 4, 9, 9),
    ),
    "layer scale": (lambda: Scaled(nn.Linear(8, 6), times, 6), (3, 5, 8)),
    "one value": (lambda: Scaled(nn.Linear(8, 6, bias=False), times, 1), (3, 8)),
    "summand": (lambda: Scaled(nn.Linear(8, 6, bias=False), plus, 1, 6), (3, 8)),
}
KEPT: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "by rows": (lambda: Scaled(nn.Linear(8, 6), times, 3, 1), (3, 8)),
    "by columns": (lambda: Scaled(nn.Conv2d(3, 8, 3), times, 7), (2, 3, 9, 9)),
    "of more dimensions": (lambda: Scaled(nn.Linear(8, 6), plus, 4, 1, 6), (3, 8)),
    "more than there are channels": (lambda: Scaled(nn.Linear(8, 1), times, 6), (3, 8)),
    "more channels of images": (lambda: Scaled(nn.Conv2d(3, 1, 3), plus, 6, 1, 1), (2, 3, 9, 9)),
    "positions": (lambda: Scaled(nn.Linear(8, 6), plus, 1, 3, 6), (2, 3, 8)),
}


def behind(module: GraphModule) -> int:
    names = ("aten.mul.Tensor", "aten.add.Tensor")
    return sum(str(node.target) in names for node in module.graph.nodes)


@pytest.mark.parametrize("name", [*FOLDED, *KEPT])
def test_what_has_one_value_a_channel_is_folded_and_the_function_is_the_same(name: str) -> None:
    make, shape = (FOLDED | KEPT)[name]
    model, x = seeded(lambda: make().eval()), torch.randn(shape)
    done = FOLD.run(capture(model, (x,)))
    assert (behind(done) == 0) is (name in FOLDED)
    with torch.no_grad():
        torch.testing.assert_close(done(x), model(x), rtol=1e-5, atol=1e-5)


def test_a_layer_with_two_readers_keeps_what_is_behind_it() -> None:
    model = Scaled(nn.Linear(8, 6), lambda y, values: y * values + y, 6).eval()
    assert behind(FOLD.run(capture(model, (torch.randn(3, 8),)))) == 2


@pytest.mark.parametrize("norm", [FrozenBatchNorm, nn.BatchNorm2d])
def test_a_layer_that_is_called_twice_is_stored_once(norm: Callable[[int], nn.Module]) -> None:
    model = seeded(lambda: Siamese(nn.Conv2d(3, 8, 3), norm(8)).eval())
    x = torch.randn(2, 3, 9, 9)
    result = quantize(model, (x,), calibration=[x])
    weights = [each for each in result.quantized.state_dict().values() if each.dim() > 1]
    assert [each.dtype for each in weights] == [torch.int8]
    assert behind(result.quantized) == 0
    with torch.no_grad():
        expected, given = model(x), result.module(x)
    assert (given - expected).abs().max() < 0.05 * expected.abs().max()


class Siamese(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.tower = nn.Sequential(*layers, nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.tower(x) - self.tower(-x)
        return y


def test_a_head_that_is_tied_stays_so() -> None:
    model, tokens = seeded(lambda: TiedHead().eval()), torch.arange(8).reshape(2, 4)
    result = quantize(model, (tokens,), calibration=[tokens])
    tables = [each for each in result.quantized.state_dict().values() if each.dim() > 1]
    assert [each.dtype for each in tables] == [torch.int8]
    with torch.no_grad():
        expected, given = model(tokens), result.module(tokens)
    assert (given - expected).abs().max() < 0.05 * expected.abs().max()


class TiedHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(16, 8)
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, tokens: Tensor) -> Tensor:
        return F.linear(self.table(tokens), self.table.weight) * self.scale


def test_frozen_norms_let_the_activation_into_the_kernel() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 8, 3), FrozenBatchNorm(8), nn.ReLU(), nn.Conv2d(8, 4, 3))
    model, x = seeded(lambda: layers.eval()), torch.randn(2, 3, 9, 9)
    result = quantize(model, (x,), calibration=[x])
    assert [site.reason for site in result.report.sites] == ["", ""]
    quantized = [node.name for node in result.quantized.graph.nodes if "quantize" in node.name]
    assert sum("dequantize" not in name for name in quantized) == 2, "one a layer: none in between"


def test_a_graph_that_trains_is_left_alone() -> None:
    prepared = prepare_qat(Scaled(nn.Linear(8, 6), times, 6).train(), (torch.randn(3, 8),))
    assert behind(prepared) == 1
