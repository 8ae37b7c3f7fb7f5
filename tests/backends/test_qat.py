"""Training on x86, from its drawings to int8 kernels, and what other backends say to it."""

from __future__ import annotations

import pytest
import torch
from syrupy.assertion import SnapshotAssertion
from torch import Tensor, nn

from quantfx import backends
from quantfx.backends.backend import Backend
from quantfx.backends.checks import targets
from quantfx.backends.x86 import x86
from quantfx.passes.config.config import Config
from quantfx.passes.errors import ConfigError, ContractError, PipelineError, SpecError
from quantfx.passes.quant.annotation import annotation_of
from quantfx.passes.quant.qparams import saturates
from quantfx.passes.train.qat_module import QatModule
from quantfx.passes.train.qat_schedule import QatSchedule
from quantfx.patterns.loader import load
from quantfx.tools.models.mobilenet_v2 import STAGES, mobilenet_v2
from quantfx.tools.models.resnet import resnet18
from quantfx.tools.models.seeded import seeded
from tests.models.normed import NORMED, image, norm1d, norm2d, normed
from tests.models.small import residual_block
from tests.refusals import refused
from tests.unchecked import capture

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randn(4, 3, 32, 32, generator=GENERATOR)


def nearly(ours: Tensor, theirs: Tensor) -> bool:
    """Equal, but for sums that a folded batch norm rounds to the other neighbouring integer."""
    return bool((ours - theirs).abs().max() <= 0.02 * theirs.abs().max())


class Mixed(nn.Module):
    """One of each kind that training fuses, and a batch norm that is no layer's."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.conv_norm = nn.Conv1d(3, 4, 3), norm1d(4)
        self.linear, self.linear_norm = nn.Linear(4, 6, bias=False), norm1d(6)
        self.last = norm1d(6)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv_norm(self.conv(x)).relu().mean(2)
        return self.last(self.linear_norm(self.linear(y)).relu())


SNAPSHOTS = {
    "residual_block": (residual_block, torch.randn(2, 4, 8, 8, generator=GENERATOR)),
    "mixed": (lambda: seeded(Mixed), torch.randn(2, 3, 8, generator=GENERATOR)),
}


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_snapshots(name: str, graph_snapshot: SnapshotAssertion) -> None:
    make, x = SNAPSHOTS[name]
    module = x86().prepare(capture(make(), (x,), training=True), qat=True)
    assert module == graph_snapshot(name="prepared")
    module(x)
    quantized = x86().convert(module)
    assert quantized == graph_snapshot(name="qdq")
    assert nearly(quantized(x), module.eval()(x))


def trained(model: nn.Module, x: Tensor, backend: Backend, steps: int = 3) -> QatModule:
    module = backend.prepare(capture(model, (x,), training=True), qat=True)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        batch = torch.randn(x.shape, generator=GENERATOR)
        torch.autograd.backward(module(batch).square().mean())
        optimizer.step()
    return module


@pytest.mark.parametrize("name", NORMED)
def test_what_is_trained_is_lowered(name: str) -> None:
    backend = backends.get("x86")
    model, x = normed(name)
    module = trained(model, x, backend)
    quantized = backend.convert(module)
    [site] = backend.lowering(quantized).sites
    assert site.kernel
    expected = module.eval()(x)
    step = (expected.max() - expected.min()) / 255
    assert (backend.lower(quantized)(x) - expected).abs().max() <= step


@pytest.mark.parametrize(
    ("make", "kernels"),
    [
        (lambda: resnet18((1, 1), width=8), {"conv2d": 6, "max_pool2d": 1, "linear": 1}),
        pytest.param(
            lambda: mobilenet_v2(STAGES[:3], last=64),
            {"conv2d": 19, "linear": 1},
            marks=pytest.mark.sweep,
        ),
    ],
    ids=["resnet", "mobilenet"],
)
def test_networks_are_planned_as_for_calibration(make: object, kernels: dict[str, int]) -> None:
    assert callable(make)
    model: nn.Module = make()
    backend = backends.get("x86")
    module = trained(model, IMAGES, backend, steps=1)
    quantized = backend.convert(module)
    plain = backend.prepare(capture(model.eval(), (IMAGES,)))

    def plan(graph: torch.fx.GraphModule) -> list[tuple[str, str]]:
        notes = {n.name: annotation_of(n) for n in graph.graph.nodes}
        return sorted((note.match, note.template) for note in notes.values() if note)

    assert plan(quantized) == plan(plain)
    sites = backend.lowering(quantized).sites
    assert all(site.kernel for site in sites)
    counts = {kind: sum(site.kind == kind for site in sites) for kind in kernels}
    assert counts == kernels
    assert nearly(quantized(IMAGES), module.eval()(IMAGES))


@pytest.mark.parametrize("learn_scales", [False, True])
def test_training_keeps_the_sums_of_saturating_cpus_in_bounds(learn_scales: bool) -> None:
    backend = x86(targets.get("avx2"))
    model = nn.Sequential(nn.Conv2d(8, 6, 3), norm2d(6), nn.Flatten(), nn.Linear(216, 5))
    x = image(8, 8, 8)
    graph = capture(model.train(), (x,), training=True)
    module = backend.prepare(graph, qat=True, learn_scales=learn_scales)
    module(x).square().sum().backward()
    quantized = backend.convert(module)
    for name, pairing in (("0.weight_s8", "blocks"), ("3.weight_s8", "adjacent")):
        integers = quantized.get_buffer(name)
        assert integers.abs().max() <= 127
        assert not saturates(integers, 255, pairing).any()  # type: ignore[arg-type]
    assert nearly(quantized(x), module.eval()(x))
    plain = x86().prepare(graph, qat=True)
    plain(x)
    assert saturates(x86().convert(plain).get_buffer("3.weight_s8"), 255, "adjacent").any()


def test_xpu_says_that_it_does_not_train() -> None:
    graph = capture(residual_block(), (torch.randn(2, 4, 8, 8),), training=True)
    with refused("no-training", PipelineError, site="xpu", fix="x86", says="'fuse-qat-conv-bn'"):
        backends.get("xpu", target="any").prepare(graph, qat=True)


def test_graphs_and_options_of_the_other_kind_are_refused() -> None:
    model, x = residual_block(), torch.randn(2, 4, 8, 8)
    evaluation, training = capture(model, (x,)), capture(model, (x,), training=True)
    with refused("captured-mode", PipelineError, fix="training=True"):
        x86().prepare(evaluation, qat=True)
    with refused("captured-mode", PipelineError, fix="qat=True"):
        x86().prepare(training)
    with refused("training-option", PipelineError, site="learn_scales"):
        x86().prepare(evaluation, learn_scales=True)  # type: ignore[call-overload]
    with refused("no-training", PipelineError, site="observe-channels"):
        x86(smooth=0.5).prepare(training, qat=True)
    prepared = x86().prepare(training, qat=True)
    with refused("not-captured", PipelineError):
        x86().prepare(prepared, qat=True)


def test_the_config_decides_in_training_too() -> None:
    # Its own data: weights are rounded once those of the batch are folded.
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    model = residual_block()
    graph = capture(model, (x,), training=True)
    config = Config().module("conv1", None).weights(quant_min=-8, quant_max=7)
    backend = x86().with_config(config)
    module = backend.prepare(graph, qat=True)
    module(x)
    quantized = backend.convert(module)
    names = {name for name, _ in quantized.named_buffers() if name.endswith("_s8")}
    assert names == {"conv2.0.weight_s8"}
    integers = quantized.get_buffer("conv2.0.weight_s8")
    assert (int(integers.min()), int(integers.max())) == (-8, 7)
    assert not quantized.graph.find_nodes(
        op="call_function", target=torch.ops.aten.batch_norm.default
    )  # that of the float layer is folded, as in calibration
    assert nearly(quantized(x), module.eval()(x))
    with refused("unused-rule", ConfigError, site="module='conv9'"):
        x86().with_config(Config().module("conv9", None)).prepare(graph, qat=True)
    with refused("nothing-to-quantize", ContractError, site="conv2d"):
        x86().with_config(Config(None)).prepare(graph, qat=True)


def test_a_branch_of_control_flow_does_not_train() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            chosen: Tensor = torch.cond(x.sum() > 0, self.left, self.right, (x,))
            return chosen

    x = torch.randn(4, 8, generator=GENERATOR)
    graph = capture(Branches(), (x,), training=True)
    with refused("branch-training", SpecError, site="linear.input", says="true_graph_0"):
        x86().prepare(graph, qat=True)


def test_modules_and_what_others_trained_are_refused() -> None:
    net = nn.Sequential(nn.Linear(8, 4))
    with refused("not-a-graph", PipelineError):
        x86().prepare(net, qat=True)  # type: ignore[call-overload]
    with refused("not-a-graph", PipelineError):
        x86().convert(net)  # type: ignore[arg-type]
    x = torch.randn(4, 8, generator=GENERATOR)
    module = x86().prepare(capture(net, (x,), training=True), qat=True)
    module(x)
    with refused("no-training", PipelineError, site="xpu"):
        backends.get("xpu", target="any").convert(module)
    with refused("float64", SpecError, site="_0_weight", fix="float32", says="float64"):
        x86().convert(module.double())
    with refused("not-prepared", PipelineError, fix="DataParallel"):
        QatSchedule().apply(nn.DataParallel(module), 0)  # type: ignore[arg-type]


def test_templates_that_a_backend_leaves_out_do_not_train_either() -> None:
    model, x = normed("relu")
    graph = capture(model, (x,), training=True)
    with refused("nothing-to-quantize", ContractError, site="conv2d"):
        x86().without_templates("conv2d").prepare(graph, qat=True)
    narrow = x86(patterns=load("pt2e"))
    assert narrow.qat is not None
    names = narrow.qat.recipe(narrow.recipe).patterns.group("conv-bn").names
    assert names == ("conv2d_bn_add", "conv2d_bn", "linear_bn_add", "linear_bn")
