"""The base of repairs: layer by layer, each if a bisection permits it."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field

from torch.fx import GraphModule

from quantfx.passes.convert.repair.input_sources import InputSource, RecordedInputs, SampledInputs
from quantfx.passes.convert.repair.repairable import RepairableLayer, repairable_layers
from quantfx.passes.errors import PipelineError
from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.graphs import Site, all_graphs
from quantfx.passes.graph.remark import ModelRemark
from quantfx.passes.observe.statistics.recorders import LEAST_SAMPLES
from quantfx.passes.observers.statistics.sample import rows_of
from quantfx.passes.pipeline.base import Context, PassResult
from quantfx.passes.pipeline.graph_pass import GraphPass
from quantfx.passes.pipeline.permits import may

# Samples for a repair that is not requested explicitly, if calibration had as many.
MOST_SAMPLES = 32


@dataclass(frozen=True)
class Repair(GraphPass):
    """Changes the stored tensors of layers so that rounding costs less, based on data.

    Attributes:
        from_samples: Use a sample of the inputs that calibration keeps, if it has at least this
            many rows, and otherwise do nothing. 0 requires statistics of all data and uses those.
    """

    from_samples: int = field(default=0, kw_only=True)

    requires = frozenset({"observed"})
    keeps_float = False
    optional = True
    needs_statistics = True

    def __post_init__(self) -> None:
        if self.from_samples < 0:
            message = f"from_samples={self.from_samples} is negative"
            raise PipelineError(message, rule="number-range", site="from_samples")

    @property
    def wants_samples(self) -> int:
        """How many rows calibration should keep."""
        return max(self.from_samples, MOST_SAMPLES) if self.from_samples else 0

    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Repair each graph, or say why there is too little data."""
        if self.from_samples and (reason := self._too_little(module, context)):
            remark = ModelRemark(f"nothing was repaired: {reason}")
            return PassResult((remark,), {self.counts: 0})
        return super().run(module, context)

    def _too_little(self, module: GraphModule, context: Context) -> str:
        rows = sum(map(rows_of, context.sample))
        if rows < self.from_samples:
            return (
                f"calibration kept {rows} samples of its inputs, of {self.from_samples} needed "
                f"(repair=True goes by {LEAST_SAMPLES})"
            )
        return "a graph is nested in another" if len(list(all_graphs(module))) > 1 else ""

    def obstacle(self, editor: Editor, layer: RepairableLayer) -> str:
        """Return why ``layer`` cannot be repaired; empty if it can."""
        return ""

    @abstractmethod
    def repair(self, editor: Editor, layer: RepairableLayer) -> str:
        """Repair ``layer`` and return a remark; return "" if it would not help."""

    def rewrite(self, editor: Editor, context: Context) -> int:
        """Repair each layer whose inputs are known."""
        count = 0
        for layer in repairable_layers(editor, self._source(editor, context), self.name):
            name, op = layer.node.name, str(layer.node.target)
            if reason := self.obstacle(editor, layer):
                editor.remark("missed", name, f"{self.name}: {reason}", op)
                continue
            if not may(self.name, layer.annotation.template, str(Site(editor.path, name))):
                continue
            if told := self.repair(editor, layer):
                editor.remark("applied", name, told)
                count += 1
            else:
                message = f"{self.name}: nothing gains on held-out inputs"
                editor.remark("missed", name, message, op)
        return count

    def _source(self, editor: Editor, context: Context) -> InputSource:
        if self.from_samples:
            return SampledInputs(editor, context.sample)
        return RecordedInputs(context.require_statistics(self.name), editor.path)
