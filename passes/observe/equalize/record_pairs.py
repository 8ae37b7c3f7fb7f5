"""Insert recorders for the tensors between layers that can be equalized."""

from __future__ import annotations

from quantfx.passes.graph.editor import Editor
from quantfx.passes.observe.equalize.pairs import Pair, PairFinder
from quantfx.passes.observe.equalize.recorder import PairRecorder
from quantfx.passes.observe.insert_observers import label_of
from quantfx.passes.observe.statistics.patches import Patches
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.graph_pass import GraphPass


class RecordPairs(GraphPass):
    """``second(f(first(x))) -> record(f(first(x))); second(f(first(x)))``.

    See ``follow_channels.py`` for f. For every other tensor that a convolution or linear reads, a
    remark says why it is not equalized. Nothing is recorded in a graph that trains.
    """

    name = "record-pairs"
    counts = "pairs"
    in_training = False
    provides = frozenset({"observed", "pairs-recorded"})

    def rewrite(self, editor: Editor, context: Context) -> int:
        """Insert the recorders."""
        finder = PairFinder(editor.module)
        pairs: list[Pair] = []
        for tensor, second in finder.tensors().items():
            found = finder.find(tensor)
            if isinstance(found, str):
                editor.remark("missed", second.name, f"not equalized: {found}", str(second.target))
            else:
                pairs.append(found)
        for pair in pairs:
            cuts = (Patches.of(editor.module, each) for each in pair.seconds)
            recorder = PairRecorder(label_of(pair.tensor), tuple(each for each in cuts if each))
            name = editor.free_name(f"pair_{pair.tensor.name}")
            editor.call_module(name, recorder, pair.tensor, after=pair.tensor)
        return len(pairs)
