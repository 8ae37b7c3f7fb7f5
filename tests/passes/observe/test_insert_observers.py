from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from quantfx.backends.x86 import x86
from quantfx.passes.errors import PipelineError
from quantfx.passes.observe.calibrate import calibrate
from quantfx.passes.observe.insert_observers import InsertObservers
from quantfx.passes.observers.observer import Observer
from quantfx.passes.observers.weight import WeightObserver
from quantfx.passes.pipeline.pipeline import Pipeline
from tests.models.small import mlp
from tests.refusals import refused
from tests.unchecked import capture

X = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))


def test_weights_are_observed_once_and_not_in_calibration(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = [0]
    real = WeightObserver.observe

    def counted(self: WeightObserver, x: Tensor) -> None:
        calls[0] += 1
        real(self, x)

    monkeypatch.setattr(WeightObserver, "observe", counted)
    prepared = x86().prepare(capture(mlp(), (X,)))
    assert calls == [2]
    calibrate(prepared, [X, X, X])
    assert calls == [2]


def test_observers_sit_on_the_edges_and_are_named_after_readers() -> None:
    prepared = x86().prepare(capture(mlp(), (X,)))
    observers = {name: m for name, m in prepared.named_modules() if isinstance(m, Observer)}
    assert sorted(observers) == [f"activation_post_process_{index}" for index in range(4)]
    nodes = [node for node in prepared.graph.nodes if node.op == "call_module"]
    assert sorted(str(node.target) for node in nodes) == sorted(observers)
    assert all("linear" in observer.label for observer in observers.values())
    for node in nodes:
        assert node.meta["val"] is node.all_input_nodes[0].meta["val"]


def test_names_the_model_owns_are_not_taken() -> None:
    class Owner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.activation_post_process_0 = nn.Linear(8, 8)
            self.register_buffer("activation_post_process_1", torch.ones(8))

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.activation_post_process_0(x) + self.activation_post_process_1
            return y

    model = Owner().eval()
    prepared = x86().prepare(capture(model, (X,)))
    calibrate(prepared, [X])
    with torch.no_grad():
        torch.testing.assert_close(prepared(X), model(X))
    x86().convert(prepared)


def test_the_option_has_a_text_form_and_is_checked() -> None:
    pipeline = Pipeline((InsertObservers("learn"),))
    assert str(pipeline) == "insert-observers{fake_quantize='learn'}"
    assert Pipeline.parse(str(pipeline)) == pipeline
    with refused("unknown-name", PipelineError, site="folow", fix="follow"):
        InsertObservers("folow")  # type: ignore[arg-type]


@pytest.mark.parametrize("learn_scales", [False, True])
def test_what_is_computed_from_constants_is_trained_as_an_activation(learn_scales: bool) -> None:
    class Positions(nn.Module):
        """Relative positions as DeBERTa has them: a table, normed, dropped and projected."""

        def __init__(self) -> None:
            super().__init__()
            self.table, self.norm = nn.Parameter(torch.randn(5, 8)), nn.LayerNorm(8)
            self.drop, self.linear = nn.Dropout(0.2), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x) @ self.linear(self.drop(self.norm(self.table))).t()

    torch.manual_seed(0)
    graph = capture(Positions().train(), (X,), training=True)
    module = x86().prepare(graph, qat=True, learn_scales=learn_scales)
    for _ in range(3):
        module(X)
    torch.autograd.backward(module(X).square().mean())
    assert bool(module.get_parameter("table").grad.any())  # type: ignore[union-attr]
    quantized = x86().convert(module)
    torch.testing.assert_close(quantized(X), module.eval()(X), rtol=0, atol=1e-5)
