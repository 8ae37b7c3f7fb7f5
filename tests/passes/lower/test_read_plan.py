"""Finding what is quantized in a q/dq graph without annotations."""

from __future__ import annotations

import torch
from torch import nn

import quantfx
from quantfx.passes.graph.graphs import all_graphs
from quantfx.passes.lower.read_plan import ReadPlan
from quantfx.passes.pipeline.pipeline import Pipeline
from quantfx.passes.quant.annotation import annotation_of, set_annotation
from quantfx.passes.report.contract import planned_matches
from quantfx.tools.models.resnet import BasicBlock
from quantfx.tools.models.seeded import seeded
from tests import unchecked


def test_it_finds_again_what_was_planned_for_kernels() -> None:
    model = seeded(lambda: nn.Sequential(BasicBlock(8, 8, 1), nn.MaxPool2d(2), nn.Conv2d(8, 8, 1)))
    x = torch.rand(1, 8, 8, 8)
    backend = quantfx.backends.get("x86", target="any")
    prepared = backend.prepare(unchecked.capture(model, (x,)))
    prepared(x)
    quantized = backend.convert(prepared)
    planned = {match.site: match.annotation.kernel for match in planned_matches(quantized)}
    for _, graph_module in all_graphs(quantized):
        for node in graph_module.graph.nodes:
            set_annotation(node, None)
    found = Pipeline((ReadPlan(),)).run(quantized, backend.context)
    again = {match.site: match.annotation.kernel for match in planned_matches(found)}
    assert again == planned
    assert len(again) == 4


def test_annotations_that_are_there_stay() -> None:
    model = nn.Linear(8, 4).eval()
    x = torch.rand(2, 8)
    result = unchecked.quantize(model, (x,))
    found = Pipeline((ReadPlan(),)).run(result.quantized, result.backend.context)
    for before, after in zip(result.quantized.graph.nodes, found.graph.nodes, strict=True):
        assert annotation_of(before) == annotation_of(after)


def test_a_float_graph_has_no_plan() -> None:
    graph = unchecked.capture(nn.Linear(8, 4).eval(), (torch.rand(2, 8),))
    backend = quantfx.backends.get("x86", target="any")
    quantized = backend.convert(
        backend.without_templates("linear").prepare(graph, strict=False), strict=False
    )
    assert not planned_matches(Pipeline((ReadPlan(),)).run(quantized, backend.context))
