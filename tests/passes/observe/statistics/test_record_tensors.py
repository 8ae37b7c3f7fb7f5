from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from quantfx.backends.x86 import x86
from quantfx.collect_statistics import collect_graph
from quantfx.passes.config.config import Config
from quantfx.passes.errors import CalibrationError
from quantfx.passes.graph.graphs import Site
from quantfx.passes.observe.statistics.fill_observers import fill_observers
from quantfx.passes.observe.statistics.record_statistics import record_statistics
from quantfx.passes.observe.statistics.record_tensors import RecordTensors
from quantfx.passes.observers.statistics.digests import ModelDigest
from quantfx.passes.pipeline.pipeline import Pipeline
from quantfx.tools.models.seeded import seeded
from tests.refusals import refused
from tests.unchecked import capture

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
Y = torch.randn(4, 4, generator=torch.Generator().manual_seed(1))


class Products(nn.Module):
    """A linear, and a product that is quantized on request alone."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        out: Tensor = self.linear(x) + x @ y
        return out


def test_the_function_stays_the_same() -> None:
    graph, backend = capture(seeded(Products), (X, Y)), x86()
    pipeline = backend.prepare_pipeline.replace("insert-observers", RecordTensors())
    recording = pipeline.run(graph, backend.context)
    assert torch.equal(recording(X, Y), graph(X, Y))
    assert Pipeline.parse(str(pipeline)) == pipeline
    found = record_statistics(recording, [(X, Y)], ModelDigest.of(graph), progress=False)
    assert {str(site) for site in found.tensors} == {"x", "y"}
    assert not {"linear.weight", "linear_weight"} & {site.node for site in found.tensors}
    assert found.tensors[Site("", "x")].channels is not None
    assert found.tensors[Site("", "y")].channels is None


def test_what_no_observer_sees_by_default_may_be_infinite() -> None:
    graph, backend = capture(seeded(Products), (X, Y)), x86()
    found = collect_graph(graph, backend, [(X, Y), (X, Y / 0)], progress=False)
    assert {str(site) for site in found.tensors} == {"x"}
    fill_observers(backend.prepare(graph), found)
    asked = backend.with_config(Config().op("matmul", "static"))
    with refused("not-recorded", CalibrationError, site="y"):
        fill_observers(asked.prepare(graph), found)
    with refused("not-finite", CalibrationError, site="linear (linear).input"):
        collect_graph(graph, backend, [(X / 0, Y)], progress=False)


def test_a_graph_without_recorders_is_refused() -> None:
    graph = capture(seeded(Products), (X, Y))
    with refused("not-prepared", CalibrationError, fix="record-tensors"):
        record_statistics(graph, [(X, Y)], ModelDigest.of(graph))


@pytest.mark.parametrize("layers", [True, False])
def test_layers_are_an_option(layers: bool) -> None:
    graph, backend = capture(seeded(Products), (X, Y)), x86()
    pipeline = Pipeline.parse(f"record-tensors{{layers={layers}}}")
    shared = backend.prepare_pipeline.upto("share").run(graph, backend.context)
    recording = pipeline.run(shared, backend.context)
    found = record_statistics(recording, [(X, Y)], ModelDigest.of(graph), progress=False)
    assert list(found.layers) == [Site("", "linear")] * layers
