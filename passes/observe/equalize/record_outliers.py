"""Insert recorders for the tensors whose largest channels can be split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.fx import GraphModule, Node

from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.facts import TRAINABLE, facts_of
from quantfx.passes.graph.graphs import constant
from quantfx.passes.graph.slots import read_slot
from quantfx.passes.observe.equalize.recorder import PairRecorder
from quantfx.passes.observe.insert_observers import label_of
from quantfx.passes.observe.statistics.patches import LINEAR, Patches
from quantfx.passes.pipeline.base import Context, PassResult
from quantfx.passes.pipeline.graph_pass import GraphPass


def linears_by_input(module: GraphModule) -> dict[Node, list[Node]]:
    """Return tensor -> the linears with a stored weight that read it, in graph order."""
    found: dict[Node, list[Node]] = {}
    for node in module.graph.find_nodes(op="call_function", target=LINEAR):
        if constant(module, read_slot(node, "weight")) is not None:
            found.setdefault(read_slot(node, "input"), []).append(node)
    return found


@dataclass(frozen=True)
class RecordOutliers(GraphPass):
    """``linear(x, w) -> record(x); linear(x, w)``, one recorder for all linears that read x.

    Nothing is recorded in a graph that trains.
    """

    name: ClassVar[str] = "record-outliers"
    counts: ClassVar[str] = "tensors"
    provides: ClassVar[frozenset[str]] = frozenset({"observed", "outliers-recorded"})

    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Record in every graph, unless the module trains."""
        return PassResult() if TRAINABLE in facts_of(module) else super().run(module, context)

    def rewrite(self, editor: Editor, context: Context) -> int:
        """Insert the recorders."""
        found = linears_by_input(editor.module)
        for tensor, linears in found.items():
            cuts = (Patches.of(editor.module, each) for each in linears)
            recorder = PairRecorder(label_of(tensor), tuple(each for each in cuts if each))
            name = editor.free_name(f"outliers_{tensor.name}")
            editor.call_module(name, recorder, tensor, before=linears[0])
        return len(found)
