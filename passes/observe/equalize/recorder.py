"""A module that records the channels of a pair's tensor, and keeps some of its values."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.fx import Node

from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.graphs import module_calls
from quantfx.passes.observe.statistics.patches import Patches
from quantfx.passes.observe.statistics.recorders import HELD_OUT, HeldPatches
from quantfx.passes.observers.channel import ChannelObserver
from quantfx.passes.quant.spec import QuantSpec

_ACTIVATION = QuantSpec(torch.uint8, 0, 255)


def take_recorders(editor: Editor) -> dict[Node, PairRecorder]:
    """Remove the recorders of a graph, and return them by the tensor that each recorded."""
    found: dict[Node, PairRecorder] = {}
    for call, recorder in list(module_calls(editor.module, PairRecorder)):
        found[call.all_input_nodes[0]] = recorder
        editor.erase(call)
        editor.module.delete_submodule(str(call.target))
    return found


class PairRecorder(nn.Module):
    """Records the size of channels in three of every four rows, and patches of the fourth.

    The range comes from all rows, as it will when the model is calibrated; only the choice of
    factors is judged on the fourth row.

    Args:
        label: Name of the tensor, used in errors.
        patches: How each second layer cuts the tensor.

    Attributes:
        rows: Number of rows seen.
        count: Number of values per channel behind ``size``.
        observer: Holds the histogram of each channel over all rows.
        held: Held-out patches for each second layer.
    """

    def __init__(self, label: str, patches: tuple[Patches, ...]) -> None:
        super().__init__()
        self.rows = self.count = 0
        self.observer = ChannelObserver(_ACTIVATION, label, "mse")
        self.held = tuple(map(HeldPatches, patches))
        self._patches = patches
        self._fourths = torch.zeros((), dtype=torch.float64)

    @property
    def size(self) -> Tensor:
        """The fourth root of each channel's mean fourth power, float64, ``(channels,)``."""
        return (self._fourths / self.count).pow(0.25)

    def forward(self, x: Tensor) -> Tensor:
        """Record ``x`` and return it.

        Raises:
            CalibrationError: it holds NaN or infinity.
        """
        geometry = self._patches[0].geometry
        least = 2 if geometry is None else len(geometry.kernel) + 2
        rows = x.detach().cpu()
        rows = rows if rows.dim() >= least else rows.unsqueeze(0)
        if not rows.numel():
            return x
        held = torch.arange(self.rows, self.rows + len(rows)) % HELD_OUT == HELD_OUT - 1
        by_channel = rows if geometry is None else rows.movedim(1, -1)
        self.observer(by_channel)
        chosen = by_channel[~held].double().pow(4).flatten(0, -2)
        self._fourths = self._fourths + chosen.sum(0)
        self.count += len(chosen)
        if bool(held.any()):
            for patches, kept in zip(self._patches, self.held, strict=True):
                kept.add(patches.cut(rows[held], self.rows)[0])
        self.rows += len(rows)
        return x
