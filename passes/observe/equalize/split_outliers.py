"""Split the channels of a linear's input that set its range."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.fx import Node

from quantfx.passes.errors import PipelineError
from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.graphs import Site, module_calls
from quantfx.passes.observe.equalize.judge import outputs_of, rounded_weight
from quantfx.passes.observe.equalize.record_outliers import linears_by_input
from quantfx.passes.observe.equalize.recorder import PairRecorder
from quantfx.passes.observe.equalize.second_weight import SecondWeight
from quantfx.passes.observe.statistics.recorders import LEAST_SAMPLES
from quantfx.passes.observers.fake_quantize import fake_quantized
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

    name: ClassVar[str] = "split-outliers"
    counts: ClassVar[str] = "split"
    optional: ClassVar[bool] = True
    requires: ClassVar[frozenset[str]] = frozenset({"outliers-recorded"})
    breaks: ClassVar[frozenset[str]] = frozenset({"observed", "outliers-recorded"})

    def rewrite(self, editor: Editor, context: Context) -> int:
        """Split channels of the recorded tensors."""
        recorders: dict[Node, PairRecorder] = {}
        for call, recorder in list(module_calls(editor.module, PairRecorder)):
            recorders[call.all_input_nodes[0]] = recorder
            editor.erase(call)
            editor.module.delete_submodule(str(call.target))
        readers = linears_by_input(editor.module)
        return sum(
            self._split(editor, tensor, readers[tensor], recorder)
            for tensor, recorder in recorders.items()
        )

    def _split(
        self, editor: Editor, tensor: Node, linears: Sequence[Node], recorder: PairRecorder
    ) -> bool:
        told = ""
        if recorder.rows < LEAST_SAMPLES:
            told = f"{recorder.rows} rows of data, of {LEAST_SAMPLES} needed to judge it"
        else:
            parts = self._parts(recorder)
            seconds = [SecondWeight.of(editor.module, each) for each in linears]
            before = _noise(recorder, seconds, torch.ones_like(parts))
            after = _noise(recorder, seconds, parts)
            if not after < before:
                told = f"outputs err no less on held-out inputs ({after:.1e} of {before:.1e})"
            elif may(self.name, "", str(Site(editor.path, tensor.name))):
                _widen(editor, tensor, linears, parts)
                gain = 10 * math.log10(before / after) if after else math.inf
                added = int((parts - 1).sum())
                less = f"outputs err by {gain:.1f} dB less on held-out inputs"
                message = f"{added} channels beside {len(parts)}: {less}"
                editor.remark("applied", linears[0].name, message)
                return True
        if told:
            message = f"not split: {tensor.name}: {told}"
            editor.remark("missed", linears[0].name, message, str(linears[0].target))
        return False

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


def _noise(recorder: PairRecorder, linears: Sequence[SecondWeight], parts: Tensor) -> float:
    """Return the squared error of the outputs over their squares, summed over the linears.

    All parts of a channel are equal, so they are rounded alike: together they err as one that is
    ``parts`` times as large.
    """
    qparams = recorder.observer.divide_by(parts.float()).calculate_qparams()
    total = 0.0
    for linear, held in zip(linears, recorder.held, strict=True):
        divisor = parts.float()
        rounded = fake_quantized(held.rows / divisor, qparams) * divisor
        exact = outputs_of(held.rows, linear.value, 1)
        error = outputs_of(rounded, rounded_weight(linear.value.float()), 1) - exact
        power = float(exact.square().sum())
        total += float(error.square().sum()) / power if power else 0.0
    return total


def _widen(editor: Editor, tensor: Node, linears: Sequence[Node], parts: Tensor) -> None:
    """Let the linears read each channel as often as it has parts, and its weight as often."""
    first = linears[0]
    index = torch.repeat_interleave(torch.arange(len(parts)), parts.long())
    factors = 1 / parts[index]
    places = editor.constant(f"{tensor.name}_channels", index, like=first, before=first)
    by = editor.constant(f"{tensor.name}_parts", factors.float(), like=first, before=first)
    copied = editor.call(SELECT, (tensor, -1, places), like=first, before=first)
    split = editor.call(MULTIPLY, (copied, by), like=first, before=first)
    for linear in linears:
        weight = SecondWeight.of(editor.module, linear)
        stored = editor.stored(weight.stored)
        wider = weight.value[:, index].to(stored)
        set_argument(linear, "input", split)
        set_argument(linear, "weight", editor.changed_constant(weight.stored, wider, before=linear))
