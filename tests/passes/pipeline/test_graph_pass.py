from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from quantfx.passes.graph.editor import PROVENANCE_KEY, Editor
from quantfx.passes.graph.graphs import all_graphs
from quantfx.passes.graph.remark import Remark
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.graph_pass import GraphPass
from quantfx.passes.pipeline.pipeline import Pipeline
from quantfx.passes.pipeline.record import records_of
from quantfx.patterns.schema import resolve_op
from tests.unchecked import capture

_RELU, _TANH = resolve_op("aten.relu.default"), resolve_op("aten.tanh.default")


@dataclass(frozen=True)
class Tanh(GraphPass):
    """``relu(x) -> tanh(x)``: all that somebody writes who rewrites graph by graph."""

    name: ClassVar[str] = "tanh"
    counts: ClassVar[str] = "replaced"
    keeps_float: ClassVar[bool] = False

    def rewrite(self, editor: Editor, context: Context) -> int:
        found = editor.graph.find_nodes(op="call_function", target=_RELU)
        for node in found:
            new = editor.call(_TANH, node.args, like=node, before=node)
            editor.replace(node, new)
            editor.remark("applied", new.name, "a smooth one", "relu")
        return len(found)


class Branches(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(x)
        return torch.cond(x.sum() > 1, lambda x: torch.relu(x + 1), lambda x: x.sin(), (x,))


def test_every_graph_is_rewritten_counted_and_remarked_on() -> None:
    x = torch.tensor([1.0, 0.5, 2.0])
    done = Pipeline((Tanh(), Tanh())).run(capture(Branches().eval(), (x,)))
    first, second = records_of(done)[-2:]
    assert (first.changed, first.stats) == (True, {"replaced": 2})
    assert (second.changed, second.stats, second.remarks) == (False, {"replaced": 0}, ())
    assert first.remarks == (
        Remark("applied", "", "tanh_default", "a smooth one", "relu"),
        Remark("applied", "true_graph_0", "tanh_default", "a smooth one", "relu"),
    )
    made = [
        node
        for _, graph_module in all_graphs(done)
        for node in graph_module.graph.find_nodes(op="call_function", target=_TANH)
    ]
    assert [node.meta[PROVENANCE_KEY] for node in made] == ["tanh", "tanh"]
    torch.testing.assert_close(done(x), torch.tanh(x.tanh() + 1))
