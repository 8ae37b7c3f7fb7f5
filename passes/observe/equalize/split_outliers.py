"""Split the channels of a linear's input that set its range."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from quantfx.passes.errors import PipelineError
from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.graphs import Site
from quantfx.passes.observe.equalize.judge import noise
from quantfx.passes.observe.equalize.record_outliers import readers_of
from quantfx.passes.observe.equalize.recorder import PairRecorder, take_recorders
from quantfx.passes.observe.equalize.second_weight import SecondWeight
from quantfx.passes.observe.statistics.recorders import LEAST_SAMPLES
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.graph_pass import GraphPass
from quantfx.passes.pipeline.permits import may
from quantfx.patterns.schema import resolve_op, set_argument

SELECT = resolve_op("aten.index_select.default")
MULTIPLY = resolve_op("aten.mul.Tensor")
_TOGETHER = 8  # channels are added in multiples of this, as kernels take them


@dataclass(frozen=True)
class SplitOutliers(GraphPass):
    """``linear(x, w) -> linear(x[i] / n[i], w[:, i])``, i naming each channel n times.

    A channel that is cut into n equal parts needs an nth of its range, so the one scale that all
    channels share becomes finer; the sum of the parts' products is that of the channel. This is
    outlier channel splitting of activations (Zhao et al. 2019, arXiv 1901.09504) without its
    offsets of half a step. It makes a linear wider by ``share``, and costs a loop that copies x.

    The channels of the largest values are split, the largest first, so that the range falls most.
    A tensor stays unchanged, with a remark, if its linears, rounded to 8 bits, would not err less
    on held-out rows. Recorders from ``record-outliers`` are removed.

    Attributes:
        share: Channels that are added, as a share of all, rounded up to a multiple of eight.
    """

    share: float = 0.01

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            message = f"share={self.share} is not between 0 and 1"
            raise PipelineError(message, rule="number-range", site="share")

    name = "split-outliers"
    counts = "split"
    optional = True
    requires = frozenset({"outliers-recorded"})
    breaks = frozenset({"observed", "outliers-recorded"})

    def rewrite(self, editor: Editor, context: Context) -> int:
        """Split channels of the recorded tensors."""
        recorders, readers = take_recorders(editor), readers_of(editor.module)
        count = 0
        for tensor, recorder in recorders.items():
            linears = [SecondWeight.of(editor.module, each) for each in readers[tensor]]
            parts = self._parts(recorder)
            gain, told = _gain(recorder, linears, parts)
            if told:
                message = f"not split: {tensor.name}: {told}"
                editor.remark("missed", linears[0].node.name, message, str(linears[0].node.target))
            elif may(self.name, "", str(Site(editor.path, tensor.name))):
                _widen(editor, tensor, linears, parts)
                added, less = int((parts - 1).sum()), f"outputs err by {gain:.1f} dB less"
                message = f"{added} channels beside {len(parts)}: {less} on held-out inputs"
                editor.remark("applied", linears[0].node.name, message)
                count += 1
        return count

    def _parts(self, recorder: PairRecorder) -> Tensor:
        """Return into how many parts each channel is cut, float64, ``(channels,)``."""
        channels = recorder.observer.channels
        largest = torch.maximum(-channels.low, channels.high).tolist()
        parts = [1] * len(largest)
        heap = [(-size, place) for place, size in enumerate(largest)]
        heapq.heapify(heap)
        for _ in range(math.ceil(len(largest) * self.share / _TOGETHER) * _TOGETHER):
            place = heap[0][1]
            parts[place] += 1
            heapq.heapreplace(heap, (-largest[place] / parts[place], place))
        return torch.tensor(parts, dtype=torch.float64)


def _gain(
    recorder: PairRecorder, linears: Sequence[SecondWeight], parts: Tensor
) -> tuple[float, str]:
    """Return by how many decibels the linears err less, and why they should not be changed."""
    if recorder.rows < LEAST_SAMPLES:
        return 0.0, f"{recorder.rows} rows of data, of {LEAST_SAMPLES} needed to judge it"
    before = noise(recorder, linears, torch.ones_like(parts))
    after = noise(recorder, linears, parts, parts=True)
    if not after < before:
        return 0.0, f"outputs err no less on held-out inputs ({after:.1e} of {before:.1e})"
    return (10 * math.log10(before / after) if after else math.inf), ""


def _widen(editor: Editor, tensor: Node, linears: Sequence[SecondWeight], parts: Tensor) -> None:
    """Let the linears read each channel as often as it has parts, and its weight as often."""
    first, value = linears[0].node, tensor.meta["val"]
    index = torch.repeat_interleave(torch.arange(len(parts)), parts.long())
    factors = (1 / parts[index]).to(value.dtype)
    places = editor.constant(f"{tensor.name}_channels", index, before=first)
    by = editor.constant(f"{tensor.name}_parts", factors, before=first)
    copied = editor.call(SELECT, (tensor, -1, places), before=first)
    split = editor.call(MULTIPLY, (copied, by), before=first)
    for each in linears:
        wider = each.value[:, index].to(editor.stored(each.stored))
        changed = editor.changed_constant(each.stored, wider, before=each.node)
        set_argument(each.node, "input", split)
        set_argument(each.node, "weight", changed)
