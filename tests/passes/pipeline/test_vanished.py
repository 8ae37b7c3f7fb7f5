"""A pipeline finds out which names a pass takes away, and what stands in their place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from quantfx import Pipeline, capture
from quantfx.passes.graph.editor import Editor
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.graph_pass import GraphPass
from quantfx.passes.pipeline.record import records_of


@dataclass(frozen=True)
class TwoSigns(GraphPass):
    """``neg(neg(relu(x))) -> relu(x)``, and tanh goes with what nobody reads."""

    name: ClassVar[str] = "two-signs"

    def rewrite(self, editor: Editor, context: Context) -> int:
        [outer] = [n for n in editor.graph.nodes if n.name == "neg_1"]
        inner = outer.args[0]
        editor.replace(outer, inner.args[0])
        editor.erase(inner)
        return 1


class Signs(nn.Module):
    """Two signs that cancel each other."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.neg(torch.neg(torch.relu(x))) + 1


def test_replaced_and_consumed_nodes_lead_to_what_is_read_now() -> None:
    graph = capture(Signs().eval(), torch.randn(2))
    done = Pipeline((TwoSigns(),)).run(graph)
    vanished = records_of(done)[-1].vanished
    assert [(each.node, each.op, each.became) for each in vanished] == [
        ("neg", "aten.neg.default", "relu"),
        ("neg_1", "aten.neg.default", "relu"),
    ]
    assert vanished[0].code is not None
    assert vanished[0].code.text == "return torch.neg(torch.neg(torch.relu(x))) + 1"
    assert all(not record.vanished for record in records_of(graph))


@dataclass(frozen=True)
class DropTail(GraphPass):
    """``return f(x), g(x) -> return f(x), x``: g has no reader any more."""

    name: ClassVar[str] = "drop-tail"

    def rewrite(self, editor: Editor, context: Context) -> int:
        [relu] = [n for n in editor.graph.nodes if n.name == "relu"]
        output = next(iter(relu.users))
        output.replace_input_with(relu, relu.args[0])
        editor.erase(relu)
        return 1


def test_what_nothing_reads_became_nothing() -> None:
    graph = capture(nn.Sequential(nn.Sigmoid(), nn.ReLU()).eval(), torch.randn(2))
    [gone] = records_of(Pipeline((DropTail(),)).run(graph))[-1].vanished
    assert (gone.node, gone.became, gone.module, gone.module_class) == ("relu", "", "1", "ReLU")
