"""A graph captured for training behaves in both modes as the model does, to the bit."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule

from quantfx.passes.capture.remove_dropout import RemoveDropout
from quantfx.passes.errors import CaptureError
from quantfx.passes.pipeline.pipeline import Pipeline
from quantfx.passes.train.settle_modes import SettleModes
from tests.models.small import residual_block
from tests.refusals import refused
from tests.unchecked import capture

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(4, 3, 8, 8, generator=GENERATOR)


class Everything(nn.Module):
    """Batch norm, dropouts of three kinds, attention with dropout, tied weights."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(3, 4, 3), norm, nn.Dropout(0.3)
        self.left, self.right = nn.Linear(4, 4), nn.Linear(4, 4)
        self.right.weight = self.left.weight
        self.attention = nn.MultiheadAttention(4, 2, dropout=0.2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.drop(self.norm(self.conv(x)).relu())
        y = F.dropout2d(y, 0.5, self.training).mean((2, 3))
        y = self.right(self.left(y))[:, None]
        y = self.attention(y, y, y, need_weights=False)[0]
        return F.dropout(y, 0.1, training=True)  # in evaluation, too


NORMS: dict[str, Callable[[], nn.BatchNorm2d]] = {
    "eps and momentum": lambda: nn.BatchNorm2d(4, eps=1e-3, momentum=0.03),
    "cumulative": lambda: nn.BatchNorm2d(4, momentum=None),
    "no parameters": lambda: nn.BatchNorm2d(4, affine=False),
    "no statistics": lambda: nn.BatchNorm2d(4, track_running_stats=False),
    "frozen": lambda: nn.BatchNorm2d(4).eval(),
}


@pytest.mark.parametrize("name", NORMS)
def test_both_modes_are_the_models_own(name: str) -> None:
    torch.manual_seed(0)
    norm = NORMS[name]()
    model = Everything(norm).train()
    norm.train(name != "frozen")
    modes = [module.training for module in model.modules()]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    graph = capture(model, (X,), training=True)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert norm.momentum == NORMS[name]().momentum
    twin = copy.deepcopy(model)
    for step in range(3):
        batch = torch.randn(X.shape, generator=GENERATOR)
        results = []
        for module in (twin, graph):
            torch.manual_seed(step)
            results.append(module(batch))
        assert torch.equal(*results)
    buffers = dict(graph.named_buffers())
    for key, value in twin.named_buffers():
        if key in buffers:  # a frozen batch norm counts nothing, and the counter is not read
            assert torch.equal(value, buffers[key]), key
    graph.eval()
    twin.eval()
    torch.manual_seed(9)
    expected = twin(X)
    torch.manual_seed(9)
    assert torch.equal(graph(X), expected)


def test_parameters_ask_for_gradients_as_in_the_model_and_tied_ones_are_one() -> None:
    model = Everything(nn.BatchNorm2d(4))
    model.conv.weight.requires_grad_(False)
    graph = capture(model, (X,), training=True)
    wanted = {name: each.requires_grad for name, each in model.named_parameters()}
    given = {name: each.requires_grad for name, each in graph.named_parameters()}
    assert sorted(given.values()) == sorted(wanted.values())
    assert not given["conv.weight"]
    assert len(given) == len(wanted)  # of the tied weight either name will do
    graph(X).sum().backward()
    assert all((each.grad is None) == (not each.requires_grad) for each in graph.parameters())
    assert all(each.grad is None for each in model.parameters())


def test_a_model_in_eval_mode_is_captured_as_if_it_trained() -> None:
    model = residual_block().eval()
    x = torch.randn(2, 4, 8, 8, generator=GENERATOR)
    graph = capture(model, (x,), training=True)
    assert graph.training
    assert not model.training
    assert torch.equal(graph(x), copy.deepcopy(model).train()(x))


class Frozen(nn.Module):
    """A cumulative batch norm that is frozen in front of one that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.BatchNorm2d(3, momentum=None).eval()
        self.second = nn.BatchNorm2d(3, momentum=None)
        self.third = nn.BatchNorm2d(3, momentum=None, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.third(self.second(self.first(x)).exp()).exp()


class Counting(nn.Module):
    """A buffer that is changed in place and then used."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.count: Tensor
        self.register_buffer("count", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return self.linear(x) * self.count


class WithWeights(nn.Module):
    """Attention that returns its weights, and drops some of them in training only."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y, weights = self.attention(x, x, x)
        return y.sum(1) + weights.sum()


@pytest.mark.parametrize("kind", [Frozen, Counting, WithWeights])
def test_odd_models_train_as_they_are(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model, x = kind(), X[:, 0] if kind is WithWeights else X
    graph = capture(model, (x,), training=True)
    for step in range(3):
        results = []
        for module in (model, graph):
            torch.manual_seed(step)
            results.append(module(x * (step + 1)))
            torch.autograd.backward(results[-1].square().mean())
        assert torch.equal(*results)
    given = dict(graph.named_parameters())
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert torch.allclose(given[key].grad, parameter.grad)  # type: ignore[arg-type]
    assert torch.equal(graph.eval()(x), copy.deepcopy(model).eval()(x))


def test_inference_mode_is_refused() -> None:
    with torch.inference_mode(), refused("inference-mode", CaptureError):
        capture(nn.Linear(8, 8), (X,), training=True)


def test_another_path_in_training_is_refused_by_name() -> None:
    class Rectified(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.relu() if self.training else x

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.path = nn.Linear(8, 8), Rectified()

        def forward(self, x: Tensor) -> Tensor:
            return self.path(self.linear(x))

    model, x = Net(), torch.randn(4, 8, generator=GENERATOR)
    with refused("other-in-training", CaptureError, site="relu", says=r"aten\.relu.*'path'"):
        capture(model, (x,), training=True)
    model.path.eval()
    assert torch.equal(capture(model, (x,), training=True)(x), model.linear(x))


def test_another_literal_in_training_is_refused_by_name() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return F.leaky_relu(self.linear(x), 0.1 if self.training else 0.2)

    with refused(
        "other-in-training",
        CaptureError,
        site="leaky_relu",
        says=r"negative_slope.*0\.1 in.*and 0\.2",
    ):
        capture(Net(), (X[:, 0],), training=True)


def test_what_cannot_be_copied_is_refused() -> None:
    class Net(nn.Linear):
        def __deepcopy__(self, memo: object) -> Net:
            raise TypeError("no copies")

    with refused("not-copyable", CaptureError, site="Net"):
        capture(Net(8, 8), (X,), training=True)


def test_settling_gives_the_graph_of_evaluation() -> None:
    def ops(graph: GraphModule) -> list[tuple[str, str]]:
        nodes = graph.graph.nodes
        return [(str(n.target), str(n.args)) for n in nodes if n.op == "call_function"]

    torch.manual_seed(0)
    model = Everything(nn.BatchNorm2d(4, momentum=None))
    trained = capture(model, (X,), training=True)
    assert {n.target for n in trained.graph.find_nodes(op="call_module")} == {
        "training_mode",
        "batch_norm_mode",
    }
    settled = Pipeline((SettleModes(), RemoveDropout())).run(trained)
    assert ops(settled) == ops(capture(model.eval(), (X,)))
    assert not settled.graph.find_nodes(op="call_module")


def test_regions_without_gradients_stay_without() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.frozen, self.head = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                y = self.frozen(x).relu()
            return self.head(y)

    model, x = Net(), torch.randn(4, 8, generator=GENERATOR)
    graph = capture(model, (x,), training=True)
    assert torch.equal(graph(x), model(x))
    graph(x).sum().backward()
    grads = {name: each.grad is not None for name, each in graph.named_parameters()}
    assert [name for name, has in grads.items() if has] == ["head.weight", "head.bias"]
