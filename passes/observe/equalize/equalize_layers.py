"""Equalize the channels between two layers, so that eight bits suffice for all of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from quantfx.passes.graph.batch_norm import scale_channels
from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.graphs import Site
from quantfx.passes.observe.equalize.judge import noise
from quantfx.passes.observe.equalize.pairs import Pair, PairFinder
from quantfx.passes.observe.equalize.recorder import PairRecorder, take_recorders
from quantfx.passes.observe.equalize.second_weight import SecondWeight
from quantfx.passes.observe.smoothing_scale import require_rows, require_share, smoothing_scale
from quantfx.passes.observe.statistics.recorders import LEAST_SAMPLES
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.graph_pass import GraphPass
from quantfx.passes.pipeline.permits import may
from quantfx.patterns.schema import argument_value, arguments, overload, set_argument


@dataclass(frozen=True)
class EqualizeLayers(GraphPass):
    """``second(f(first(x, w, b)), v) -> second(f(first(x, w / s, b / s)), v * s)``.

    ``s = size(y)^alpha / rms(v)^(1 - alpha)`` for each channel of ``y = f(...)``, divided by its
    geometric mean, where size is the fourth root of the mean fourth power. Layers that read one
    tensor share s, and v runs over all of them. This is cross-layer equalization (Nagel et al.
    2019, arXiv 1906.04721, section 4.1, which uses the ranges of both weights) with the factor of
    SmoothQuant (Xiao et al. 2023, equation 4), which uses the activation.

    A pair stays unchanged, with a remark, if its second layers, rounded to 8 bits, would not err
    less on held-out rows, which s was not chosen by. Recorders from ``record-pairs`` are removed.

    Attributes:
        alpha: 0 equalizes the weights, 1 the activations.
        rows: Minimum number of values per channel to choose s by; with fewer, s follows chance. On
            one of seven splits this cost 3 dB in the heads of MTCNN's O-Net, which see one row per
            image.
    """

    alpha: float = 0.5
    rows: int = 1024

    def __post_init__(self) -> None:
        require_share(self.alpha)
        require_rows(self.rows)

    name = "equalize-layers"
    counts = "equalized"
    optional = True
    requires = frozenset({"pairs-recorded"})
    breaks = frozenset({"observed", "pairs-recorded"})

    def rewrite(self, editor: Editor, context: Context) -> int:
        """Equalize the recorded pairs, from the first to the last."""
        recorders = take_recorders(editor)
        finder = PairFinder(editor.module)
        pairs = [(finder.find(tensor), recorder) for tensor, recorder in recorders.items()]
        return sum(
            self._equalize(editor, pair, recorder)
            for pair, recorder in pairs
            if isinstance(pair, Pair)
        )

    def _equalize(self, editor: Editor, pair: Pair, recorder: PairRecorder) -> bool:
        seconds = [SecondWeight.of(editor.module, each) for each in pair.seconds]
        told = self._unknown(recorder)
        if not told:
            scale = self._scale(pair, recorder, seconds)
            by_input = scale[pair.channels]
            before = noise(recorder, seconds, torch.ones_like(by_input))
            after = noise(recorder, seconds, by_input)
            if after < before and may(self.name, "", str(Site(editor.path, pair.tensor.name))):
                for each in seconds:
                    _store(editor, each.node, "weight", each.times(by_input))
                _divide(editor, pair.first, scale)
                gain = 10 * math.log10(before / after) if after else math.inf
                less = f"outputs err by {gain:.1f} dB less on held-out inputs"
                editor.remark("applied", seconds[0].stored.name, f"{pair}: {less}")
                return True
            told = f"outputs err no less on held-out inputs ({after:.1e} of {before:.1e})"
        message = f"not equalized: {pair}: {told}"
        editor.remark("missed", pair.seconds[0].name, message, str(pair.seconds[0].target))
        return False

    def _unknown(self, recorder: PairRecorder) -> str:
        """Return why the data does not suffice for a tensor; empty if it does."""
        if recorder.rows < LEAST_SAMPLES:
            return f"{recorder.rows} rows of data, of {LEAST_SAMPLES} needed to judge it"
        if recorder.count < self.rows:
            return f"{recorder.count} values per channel, of {self.rows} needed"
        return "" if bool(recorder.size.any()) else "the data gives only zeros"

    def _scale(self, pair: Pair, recorder: PairRecorder, seconds: list[SecondWeight]) -> Tensor:
        """Return s, float64, one value per channel of the first layer."""
        fourths = recorder.size.pow(4)
        squares = torch.cat([each.squares for each in seconds], 1).mean(1)
        size = _mean_by_channel(fourths, pair.channels).pow(0.25)
        return smoothing_scale(size, _mean_by_channel(squares, pair.channels).sqrt(), self.alpha)


def _mean_by_channel(values: Tensor, channels: Tensor) -> Tensor:
    """Return the mean of the ``values`` of each channel, ``(channels,)``; no channel is empty."""
    count = torch.bincount(channels)
    return torch.zeros(len(count)).to(values).index_add(0, channels, values) / count


def _divide(editor: Editor, first: Node, scale: Tensor) -> None:
    """Divide each output channel of a layer by its ``scale``."""
    for name in ("weight", "bias"):
        stored = argument_value(first, name) if name in arguments(overload(first)) else None
        value = editor.stored(stored)
        if value is None:
            continue
        inverse, value = (1 / scale).to(value.device), value.detach().double()
        scaled = value * inverse if value.dim() == 1 else scale_channels(value, inverse, first)
        _store(editor, first, name, scaled)


def _store(editor: Editor, layer: Node, name: str, value: Tensor) -> None:
    """Store a new value for the weight or bias of ``layer``."""
    stored = argument_value(layer, name)
    value = value.to(editor.stored(stored))
    set_argument(layer, name, editor.changed_constant(stored, value, before=layer))
