"""Sources of the inputs that layers multiply their weights with: statistics, or a sample."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch.fx import Node

from quantfx.passes.convert.repair.rounding_run import FloatRun, affordable, begin
from quantfx.passes.graph.clone import clone
from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.graphs import Site
from quantfx.passes.graph.slots import read_slot
from quantfx.passes.observe.statistics.patches import Patches
from quantfx.passes.observe.statistics.recorders import LEAST_SAMPLES, LayerRecorder
from quantfx.passes.observers.statistics.layer_inputs import LayerInputs, block_sizes
from quantfx.passes.observers.statistics.sample import Leaves
from quantfx.passes.observers.statistics.statistics import Statistics
from quantfx.passes.quant.annotation import DIVISOR_KEY

# Patches taken of a sample for each value in a block, and the minimum.
ROWS_PER_VALUE, LEAST_ROWS = 8, 1024


class InputSource(ABC):
    """Provides the inputs of the layers of a graph."""

    @abstractmethod
    def of(self, node: Node, shape: Sequence[int]) -> LayerInputs | None:
        """Return moments of the inputs of a layer in its present form; None if unknown.

        Args:
            node: The call; calls are requested in graph order.
            shape: Shape of its weight.
        """

    def judges(self, inputs: LayerInputs) -> bool:
        """Whether the inputs suffice to judge a choice."""
        return bool(inputs.held.shape[1])


class RecordedInputs(InputSource):
    """The inputs of all calibration data, as recorded.

    Args:
        statistics: Statistics of the data.
        path: Path of the graph.
    """

    def __init__(self, statistics: Statistics, path: str) -> None:
        self._statistics, self._path = statistics, path

    def of(self, node: Node, shape: Sequence[int]) -> LayerInputs | None:
        """Return the recorded moments, divided as the graph now divides the input."""
        found = self._statistics.layers.get(Site(self._path, node.name))
        divisor = node.meta.get(DIVISOR_KEY)
        return found if found is None or divisor is None else found.divided_by(divisor)

    def judges(self, inputs: LayerInputs) -> bool:
        """Whether there were enough samples."""
        return self._statistics.rows >= LEAST_SAMPLES and super().judges(inputs)


class SampledInputs(InputSource):
    """The inputs of a sample, found by running the float graph up to each layer.

    Only the moments of one tensor are kept.

    Args:
        editor: Editor of the graph with observers, which may be changed meanwhile.
        sample: Inputs of calls.
    """

    def __init__(self, editor: Editor, sample: Sequence[Leaves]) -> None:
        module = clone(editor.module, "buffers")
        self._nodes = {node.name: node for node in module.graph.nodes}
        self._runs = [FloatRun(module) for _ in sample[: affordable(module, sample)]]
        for run, call in zip(self._runs, sample, strict=False):
            begin(run, call)
        self._last: tuple[Node, Patches, LayerInputs | None] | None = None

    def of(self, node: Node, shape: Sequence[int]) -> LayerInputs | None:
        """Return the moments that the sample gives."""
        x = read_slot(self._nodes[node.name], "input")
        patches = Patches.of_weight(node, shape, self._most(shape))
        if self._last is None or self._last[:2] != (x, patches):
            recorder = LayerRecorder(patches)
            with torch.no_grad():
                for number, run in enumerate(self._runs):
                    recorder.offset = number
                    recorder(run.value(x))
            self._last = (x, patches, recorder.result())
        return self._last[2]

    def _most(self, shape: Sequence[int]) -> int:
        """Return how many patches are taken per call."""
        _, size = block_sizes(torch.Size(shape[1:]).numel())
        return -(-max(LEAST_ROWS, ROWS_PER_VALUE * size) // len(self._runs))
