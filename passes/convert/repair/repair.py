"""What repairs have in common: layer by layer, each if a bisection permits it."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from quantfx.passes.convert.repair.repairable import RepairableLayer, repairable_layers
from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.graphs import Site
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.graph_pass import GraphPass
from quantfx.passes.pipeline.permits import may


@dataclass(frozen=True)
class Repair(GraphPass):
    """Changes what is stored of layers so that rounding costs less, going by statistics."""

    requires: ClassVar[frozenset[str]] = frozenset({"observed"})
    keeps_float: ClassVar[bool] = False
    optional: ClassVar[bool] = True
    needs_statistics: ClassVar[bool] = True

    def obstacle(self, editor: Editor, layer: RepairableLayer) -> str:
        """Return why ``layer`` cannot be repaired, if so."""
        return ""

    @abstractmethod
    def repair(self, editor: Editor, layer: RepairableLayer) -> str:
        """Repair ``layer`` and say how far; return nothing where it would not help."""

    def rewrite(self, editor: Editor, context: Context) -> int:
        """Repair each layer that statistics tell of."""
        count = 0
        for layer in repairable_layers(editor, context, self.name):
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
