"""Dropouts of training: matched across, and put back behind the rounding."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule

from quantfx.backends.x86 import PREPARE, x86
from quantfx.passes.draw.dot import to_dot
from quantfx.passes.errors import PipelineError
from quantfx.passes.layers.lifted_dropout import KEY
from quantfx.passes.observe.calibrate import calibrate
from quantfx.passes.pipeline.pipeline import Pipeline
from quantfx.passes.quant.annotation import annotation_of
from quantfx.passes.train.lift_dropout import LiftDropout
from quantfx.passes.train.place_dropout import PlaceDropout
from quantfx.passes.train.qat_module import QatModule
from quantfx.tools.models.seeded import seeded
from tests.refusals import refused
from tests.unchecked import capture

X = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.drop, self.other = nn.Dropout(0.5), nn.Dropout(0.3)


class Residual(Base):
    """A dropout inside of what is fused: linear, sum."""

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop(self.second(self.first(x).relu()))


class Between(Base):
    """A dropout on a rounded edge."""

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.drop(self.first(x).relu()))


class Chain(Base):
    """One dropout behind another, with a reader in between."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.drop(self.first(x))
        return self.second(self.other(y)) + y.exp()


class Mixed(Base):
    """One dropout read rounded and as it is; its input, too."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        dropped = self.drop(y)
        return self.second(dropped) + dropped.exp() + F.linear(y, self.second.weight) + y


class AtTheEnd(Base):
    """A dropout whose result is the model's, in a list."""

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.second(x), self.drop(self.first(x))]


class BeforeNorm(nn.Module):
    """A dropout between a layer and its batch norm, which is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.drop, self.norm = nn.Linear(8, 8), nn.Dropout(0.5), nn.BatchNorm1d(8)

    def train(self, mode: bool = True) -> BeforeNorm:
        super().train(mode)
        self.norm.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.drop(self.first(x))).relu()


class ByMode(Base):
    """p is chosen by the mode; some readers want the result rounded, others not."""

    def forward(self, x: Tensor) -> Tensor:
        p = 0.4 if self.training else 0.0
        y = F.dropout(torch.softmax(self.first(x), -1), p, self.training)
        return self.second(y) + y


class OfAnInput(Base):
    """A dropout on an input of the graph, which is read rounded and as it is."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.drop(x)
        return self.second(y) + y.exp() + F.linear(x, self.first.weight)


class StochasticDepth(Base):
    """Samples of a branch that are dropped, inside of what is fused, and a dropout before that."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.drop(self.second(self.first(x).relu()))
        if self.training:
            y = y * y.new_empty((len(y), 1)).bernoulli_(0.5).div_(0.5)
        return x + y


class NoisyBetween(Base):
    """Noise on a rounded edge, which is read unrounded, too."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        noisy = y + torch.rand_like(y) if self.training else y
        return self.second(noisy) + noisy.exp() + F.linear(y, self.second.weight)


KINDS = (
    Residual,
    Between,
    Chain,
    Mixed,
    AtTheEnd,
    BeforeNorm,
    ByMode,
    OfAnInput,
    StochasticDepth,
    NoisyBetween,
)


def prepared(kind: type[nn.Module]) -> tuple[nn.Module, QatModule]:
    model = seeded(kind).train()
    return model, x86().prepare(capture(model, (X,), training=True), qat=True)


def run(module: nn.Module, seed: int) -> list[Tensor]:
    torch.manual_seed(seed)
    result = module(X)
    return result if isinstance(result, list) else [result]


@pytest.mark.parametrize("kind", KINDS)
def test_without_rounding_the_masks_are_the_models(kind: type[nn.Module]) -> None:
    model, module = prepared(kind)
    module.fake_quantize(False)
    for seed in range(3):
        for ours, theirs in zip(run(module, seed), run(model, seed), strict=True):
            assert torch.equal(ours, theirs)
    assert not [node for node in module.graph.nodes if KEY in node.meta]


@pytest.mark.parametrize("kind", KINDS)
def test_the_converted_graph_is_that_of_calibration(kind: type[nn.Module]) -> None:
    model, module = prepared(kind)
    module(X)
    plain = x86().prepare(capture(model.eval(), (X,)))
    calibrate(plain, [X])
    quantized = x86().convert(module)
    # Some quantize one tensor twice, with the same scale.
    if kind not in (Mixed, OfAnInput, NoisyBetween):
        assert to_dot(quantized) == to_dot(x86().convert(plain))
    for ours, theirs in zip(run(quantized, 0), run(module.eval(), 0), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("kind", [Residual, StochasticDepth])
def test_sums_are_matched_across_a_dropout(kind: type[nn.Module]) -> None:
    _, module = prepared(kind)
    labels = {note.template for n in module.graph.nodes if (note := annotation_of(n)) is not None}
    assert labels == {"linear_unary", "linear_add"}


def source(module: GraphModule, name: str) -> str:
    [node] = [node for node in module.graph.nodes if node.name == name]
    return " <- ".join(_chain(node.all_input_nodes[0]))


def _chain(node: torch.fx.Node) -> list[str]:
    kinds = {"activation_post_process": "round", "aten.dropout": "dropout"}
    kind = next((k for start, k in kinds.items() if str(node.target).startswith(start)), node.name)
    return [kind] if kind not in ("round", "dropout") else [kind, *_chain(node.all_input_nodes[0])]


def test_rounding_goes_first_unless_some_reader_wants_it_unrounded() -> None:
    assert source(prepared(Between)[1], "linear_1") == "dropout <- round <- relu"
    _, mixed = prepared(Mixed)
    assert source(mixed, "linear_1") == "round <- dropout <- linear"
    assert source(mixed, "exp") == "dropout <- linear"
    assert source(mixed, "linear_2") == "round <- linear"
    assert source(prepared(ByMode)[1], "linear_1") == "round <- dropout <- softmax"


def test_the_range_is_that_of_inference() -> None:
    """Behind the dropout it would be twice as wide."""
    _, module = prepared(Between)
    module(X)
    [node] = [node for node in module.graph.nodes if node.name == "linear_1"]
    rounding = node.all_input_nodes[0].all_input_nodes[0]
    qparams = module.get_submodule(str(rounding.target)).qparams_of(None)  # type: ignore[operator]
    widest = F.linear(X, module.get_parameter("first.weight"), module.get_parameter("first.bias"))
    assert qparams.scale.item() == pytest.approx(widest.relu().max().item() / 255, rel=0.05)


def test_a_pipeline_that_forgets_the_dropouts_is_refused() -> None:
    graph = capture(seeded(Between), (X,), training=True)
    backend = replace(x86(), prepare_pipeline=PREPARE.without("place-dropout"))
    with refused(
        "lost-dropout",
        PipelineError,
        site="lift-dropout",
        fix="place-dropout",
        says="1 dropouts.*0 back",
    ):
        backend.prepare(graph, qat=True)


@pytest.mark.parametrize("kind", [Chain, StochasticDepth])
def test_alone_the_two_passes_change_nothing(kind: type[nn.Module]) -> None:
    graph = capture(seeded(kind), (X,), training=True)
    back = Pipeline((LiftDropout(), PlaceDropout())).run(graph)
    assert to_dot(back) == to_dot(graph)
    lifted = Pipeline((LiftDropout(),)).run(graph)
    assert (
        len(lifted.graph.find_nodes(op="call_function", target=torch.ops.aten.dropout.default)) == 0
    )
    assert {str(n.target) for n in lifted.graph.find_nodes(op="call_module")} <= {"training_mode"}
    assert torch.equal(lifted.eval()(X), graph.eval()(X))
