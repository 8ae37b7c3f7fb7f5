"""Write the text and the drawing of a graph after each pass."""

from __future__ import annotations

from pathlib import Path

from torch.fx import GraphModule

from quantfx.passes.draw.dot import to_dot
from quantfx.passes.pipeline.base import Pass
from quantfx.passes.pipeline.instruments import Instrument
from quantfx.passes.pipeline.record import PassRecord


class DumpGraphs(Instrument):
    """Write ``NN-pass.txt`` and ``NN-pass.dot`` for every pass that changed the module.

    Args:
        directory: Created if it does not exist.
    """

    def __init__(self, directory: str | Path) -> None:
        self._directory = Path(directory)

    def after(self, position: int, each: Pass, module: GraphModule, record: PassRecord) -> None:
        """Write the module's text and drawing if the pass changed it."""
        if not record.changed:
            return
        self._directory.mkdir(parents=True, exist_ok=True)
        stem = self._directory / f"{position:02d}-{each.name}"
        stem.with_suffix(".txt").write_text(f"{module.graph}\n", encoding="utf-8")
        stem.with_suffix(".dot").write_text(to_dot(module), encoding="utf-8")
