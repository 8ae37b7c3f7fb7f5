from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn.utils import parametrizations, prune

from quantfx.passes.fold.fold_constants import TRAINED, FoldConstants
from quantfx.passes.graph.remark import Remark
from quantfx.passes.pipeline.pipeline import Pipeline
from quantfx.passes.pipeline.record import remarks_of
from quantfx.tools.models.seeded import seeded
from tests.unchecked import capture, prepare_qat, quantize

FOLD = Pipeline((FoldConstants(),))


class StandardizedConv(nn.Conv2d):
    """As in timm's ResNetV2 and NFNet."""

    def forward(self, input: Tensor) -> Tensor:  # as in the base class
        weight = self.weight
        variance, mean = torch.var_mean(weight, (1, 2, 3), keepdim=True, correction=0)
        weight = (weight - mean) * torch.rsqrt(variance + 1e-6)
        return F.conv2d(input, weight, self.bias, self.stride, self.padding)


class ScaledLinear(nn.Linear):
    """As in StyleGAN: a gain for weight and bias, and a weight stored in another shape."""

    def __init__(self) -> None:
        super().__init__(8, 8)
        self.flat = nn.Parameter(torch.randn(64))

    def forward(self, input: Tensor) -> Tensor:  # as in the base class
        return F.linear(input, (self.flat * 0.3).view(8, 8).t(), self.bias * 2)


class Tied(nn.Module):
    """A decoder with the encoder's weight, transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.encoder(x).relu(), self.encoder.weight.t())


def pruned() -> nn.Module:
    prune_rows: Any = prune.l1_unstructured  # which has no types
    layer: nn.Module = prune_rows(nn.Linear(8, 8), "weight", amount=0.5)
    return layer


ROWS, IMAGES, SIGNAL = (3, 8), (2, 3, 8, 8), (2, 4, 16)
LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "weight_norm": (lambda: parametrizations.weight_norm(nn.Conv1d(4, 8, 3)), SIGNAL),
    "weight_norm of old": (lambda: nn.utils.weight_norm(nn.Conv1d(4, 8, 3)), SIGNAL),
    "spectral_norm": (lambda: parametrizations.spectral_norm(nn.Linear(8, 8)), ROWS),
    "spectral_norm of old": (lambda: nn.utils.spectral_norm(nn.Linear(8, 8)), ROWS),
    "orthogonal": (lambda: parametrizations.orthogonal(nn.Linear(8, 8)), ROWS),
    "standardized": (lambda: StandardizedConv(3, 8, 3), IMAGES),
    "pruned": (pruned, ROWS),
    "scaled": (ScaledLinear, ROWS),
    "tied": (Tied, ROWS),
    "transposed": (lambda: parametrizations.weight_norm(nn.ConvTranspose1d(4, 8, 3)), SIGNAL),
}


def calls(module: GraphModule) -> int:
    return sum(node.op == "call_function" for node in module.graph.nodes)


@pytest.mark.parametrize("name", LAYERS)
def test_weights_that_are_computed_are_stored_and_the_function_is_the_same(name: str) -> None:
    make, shape = LAYERS[name]
    model, x = seeded(lambda: make().eval()), torch.randn(shape)
    graph = capture(model, (x,))
    done = FOLD.run(graph)
    assert calls(done) < calls(graph)
    with torch.no_grad():
        assert torch.equal(done(x), graph(x))
        torch.testing.assert_close(done(x), model(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "backend"),
    [(name, "x86") for name in LAYERS if name != "transposed"]
    + [("weight_norm", "native"), ("standardized", "native"), ("scaled", "xpu")],
)
def test_their_layers_are_quantized(name: str, backend: str) -> None:
    make, shape = LAYERS[name]
    model, x = seeded(lambda: make().eval()), torch.randn(shape)
    result = quantize(model, (x,), calibration=[x], backend=backend)
    layers = [row for row in result.report.rows if row.kind in ("linear", "conv1d", "conv2d")]
    assert sum(row.lowered or 0 for row in layers) == 1 + (name == "tied")
    assert not [skip for skip in result.report.skipped if "linear" in skip.op or "conv" in skip.op]
    with torch.no_grad():
        expected, given = model(x), result.quantized(x)
    assert 10 * torch.log10(expected.square().sum() / (given - expected).square().sum()) > 30


class Constants(nn.Module):
    """What is no weight: one that grows, one that is random, one that is written to."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1024))
        self.counter = nn.Buffer(torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        grown = (self.token * 2).expand(1024, 1024)
        random = torch.rand_like(self.token)
        self.counter.add_(1)
        return x + grown + random + (self.counter * 3).sum()


def test_what_grows_draws_or_is_written_to_stays_computed() -> None:
    graph = capture(Constants().eval(), (torch.randn(1024, 1024),))
    done = FOLD.run(graph)
    left = [str(node.target) for node in done.graph.nodes if node.op == "call_function"]
    assert "aten.expand.default" in left
    assert "aten.rand_like.default" in left
    assert sum("mul" in name for name in left) == 1  # by 2 is folded, by 3 is not
    assert max(each.numel() for each in done.state_dict().values()) == 1024


def test_what_a_transposed_weight_takes_is_the_memory_of_the_weight() -> None:
    model = seeded(lambda: Tied().eval())
    done = FOLD.run(capture(model, (torch.randn(3, 8),)))
    pointers = [each.untyped_storage().data_ptr() for each in done.state_dict().values()]
    assert pointers.count(model.encoder.weight.untyped_storage().data_ptr()) == 2


class Twice(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(self.layer(x).relu())
        return y


def test_what_a_layer_computes_in_each_of_its_calls_is_stored_once() -> None:
    model = seeded(lambda: Twice(parametrizations.weight_norm(nn.Linear(8, 8))).eval())
    x = torch.randn(3, 8)
    result = quantize(model, (x,), calibration=[x])
    weights = [each for each in result.quantized.state_dict().values() if each.dtype == torch.int8]
    assert len(weights) == 1
    with torch.no_grad():
        torch.testing.assert_close(FOLD.run(capture(model, (x,)))(x), model(x))


class Offsets(nn.Module):
    """Added: what is trained, and what is not."""

    def __init__(self) -> None:
        super().__init__()
        self.trained = nn.Parameter(torch.ones(8))
        self.mask = nn.Buffer(torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        counted = (self.trained > 0).float() * 2
        return x + (self.trained + 5) + (self.mask * 2) + counted


def test_what_carried_data_still_does_and_nothing_else() -> None:
    done = FOLD.run(capture(Offsets().eval(), (torch.randn(3, 8),)))
    assert [type(each) is nn.Parameter for each in done.state_dict(keep_vars=True).values()] == [
        True,
        False,
        False,
    ]
    assert not any(each.requires_grad for each in done.parameters())
    assert calls(done) == 3


def test_the_pass_says_what_was_made_of_what() -> None:
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(8, 8))).eval()
    done = FOLD.run(capture(model, (torch.randn(3, 8),)))
    (remark,) = remarks_of(done, Remark, by=FOLD.names[-1])
    assert remark.kind == "applied"
    assert remark.message == "made of 0.parametrizations.weight.original1"


def test_a_graph_that_trains_is_left_alone_with_the_reason() -> None:
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(8, 8)), nn.Linear(8, 8)).train()
    x = torch.randn(3, 8)
    prepared = prepare_qat(model, (x,))
    (remark,) = remarks_of(prepared, Remark, by="fold-constants")
    assert remark.kind == "missed"
    assert remark.message == TRAINED
    prepared(x).sum().backward()
    original = dict(prepared.named_parameters())["0.parametrizations.weight.original1"]
    assert original.grad is not None
    assert bool(original.grad.any())
