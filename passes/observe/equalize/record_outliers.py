"""Insert recorders for the tensors whose largest channels can be split."""

from __future__ import annotations

from torch.fx import GraphModule, Node

from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.graphs import constant
from quantfx.passes.graph.slots import read_slot
from quantfx.passes.observe.equalize.pairs import PairFinder
from quantfx.passes.observe.equalize.recorder import PairRecorder
from quantfx.passes.observe.insert_observers import label_of
from quantfx.passes.observe.statistics.patches import LINEAR, Patches
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.graph_pass import GraphPass


def readers_of(module: GraphModule) -> dict[Node, list[Node]]:
    """Return tensor -> the linears with a stored weight that read it, in graph order."""
    found: dict[Node, list[Node]] = {}
    for node in module.graph.find_nodes(op="call_function", target=LINEAR):
        if constant(module, read_slot(node, "weight")) is not None:
            found.setdefault(read_slot(node, "input"), []).append(node)
    return found


class RecordOutliers(GraphPass):
    """``linear(x, w) -> record(x); linear(x, w)``, one recorder for all linears that read x.

    A tensor that is overwritten, or a linear of which is not free to change, is named in a remark:
    its weight would be another's as well, or is not a stored float. Nothing is recorded in a graph
    that trains.
    """

    name = "record-outliers"
    counts = "tensors"
    in_training = False
    provides = frozenset({"observed", "outliers-recorded"})

    def rewrite(self, editor: Editor, context: Context) -> int:
        """Insert the recorders."""
        finder, count = PairFinder(editor.module), 0
        for tensor, linears in readers_of(editor.module).items():
            writer = finder.written.get(tensor)
            told = f"{writer} overwrites it" if writer else ""
            if told := told or next(filter(None, map(finder.obstacle, linears)), ""):
                message = f"not split: {tensor.name}: {told}"
                editor.remark("missed", linears[0].name, message, str(linears[0].target))
                continue
            cuts = (Patches.of(editor.module, each) for each in linears)
            recorder = PairRecorder(label_of(tensor), tuple(each for each in cuts if each))
            name = editor.free_name(f"outliers_{tensor.name}")
            editor.call_module(name, recorder, tensor, before=linears[0])
            count += 1
        return count
