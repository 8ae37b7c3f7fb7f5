"""A module beside the tensor of a pair that records its channels, and some of it as it is."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quantfx.passes.observe.statistics.patches import Patches
from quantfx.passes.observe.statistics.recorders import HELD_OUT, HeldPatches
from quantfx.passes.observers.channel import ChannelObserver
from quantfx.passes.quant.spec import QuantSpec

_ACTIVATION = QuantSpec(torch.uint8, 0, 255)


class PairRecorder(nn.Module):
    """Records how large channels are in three rows of four, and patches of the fourth.

    The range follows from all rows, as it will when the model is calibrated: what is judged on the
    fourth row is the choice of factors.

    Args:
        label: Name of the tensor, used in errors.
        patches: How each of the second layers cuts it.

    Attributes:
        rows: How many there were.
        count: Values of each channel that ``size`` is of.
        observer: Knows the histogram of each channel in all of them.
        held: Held-out patches, for each of the second layers.
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
