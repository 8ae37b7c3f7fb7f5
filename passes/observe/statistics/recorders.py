"""Modules that record tensors without affecting the graph: nothing reads their results."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from quantfx.passes.graph.graphs import Site
from quantfx.passes.observe.statistics.patches import Patches
from quantfx.passes.observers.channel_record import ChannelRecord
from quantfx.passes.observers.histogram import HistogramObserver
from quantfx.passes.observers.statistics.layer_inputs import LayerInputs, block_sizes, thinning
from quantfx.passes.observers.statistics.tensor_record import TensorRecord
from quantfx.passes.quant.spec import QuantSpec

# One of this many samples of a call is held out of the moments.
HELD_OUT = 4
# Fewer samples than this cannot judge a choice made by the others.
LEAST_SAMPLES = 8
# A histogram does not depend on the spec, so any spec will do.
_ANY = QuantSpec(torch.uint8, 0, 255)


class GroupRecorder:
    """Records the tensors of a sharing group, in the order in which they are computed.

    Args:
        sites: The producers of the tensors, sorted.
        label: Name of the tensor, used in errors.
    """

    def __init__(self, sites: tuple[Site, ...], label: str) -> None:
        self.sites = sites
        self.whole = HistogramObserver(_ANY, label)
        self.extremes: list[Tensor] = []

    def count(self, x: Tensor, low: Tensor, high: Tensor) -> None:
        """Add the finite float32 tensor ``x`` with the extremes ``low`` and ``high``."""
        self.whole.count(x, low, high)
        self.extremes.append(torch.stack((low, high)))

    def result(self, channels: ChannelRecord | None = None) -> TensorRecord:
        """Return what was recorded."""
        extremes = torch.stack(self.extremes) if self.extremes else torch.zeros(0, 2)
        whole = self.whole
        return TensorRecord(whole.histogram, whole.min_val, whole.max_val, extremes, channels)


class TensorRecorder(nn.Module):
    """Records one tensor, for itself and for the groups that it belongs to.

    Attributes:
        own: The tensor's own record.
        groups: Recorders of its groups.
        channels: Record of its channels; None if no linear reads it.
        required: Whether a non-finite value is an error, as for an observer; otherwise the tensor
            counts as not recorded.
        spoilt: Whether there was such a value.
    """

    def __init__(self, site: Site, label: str, *, required: bool, by_channel: bool) -> None:
        super().__init__()
        self.own = GroupRecorder((site,), label)
        self.groups: list[GroupRecorder] = []
        self.channels = ChannelRecord() if by_channel else None
        self.required = required
        self.spoilt = False

    def forward(self, x: Tensor) -> Tensor:
        """Record ``x`` and return it.

        Raises:
            CalibrationError: ``x`` holds NaN or infinity, and is required.
        """
        if not x.numel() or self.spoilt:
            return x
        values = x.detach().float()
        low, high = torch.aminmax(values)
        if self.required:
            self.own.whole.require_finite(low, high)
        elif not bool(torch.isfinite(low) & torch.isfinite(high)):
            self.spoilt = True
            return x
        for each in (self.own, *self.groups):
            each.count(values, low, high)
        if self.channels is not None:
            self.channels.observe(values)
        return x

    def result(self) -> TensorRecord:
        """Return the record of the tensor itself."""
        return self.own.result(self.channels)


class HeldPatches:
    """Keeps every n-th patch, with n as small as the bounds allow.

    Attributes:
        rows: The kept patches, float32, ``(groups, S, K)``.
    """

    def __init__(self, patches: Patches) -> None:
        self.rows = torch.zeros(patches.groups, 0, patches.length)
        self._seen = 0
        self._step = 1

    def add(self, rows: Tensor) -> None:
        """Keep some of ``rows``, ``(groups, rows, K)``."""
        taken = rows[:, -self._seen % self._step :: self._step].cpu()
        self._seen += rows.shape[1]
        joined = torch.cat((self.rows, taken), 1)
        step = thinning(joined)
        self.rows = joined[:, ::step]
        self._step *= step


class LayerRecorder(nn.Module):
    """Records second moments of the inputs of layers.

    Attributes:
        sites: The layers; layers of one record cut one tensor equally.
        patches: How the layers cut the tensor.
        offset: First patch to take in a call with more patches than are taken.
    """

    def __init__(self, patches: Patches) -> None:
        super().__init__()
        self.sites: list[Site] = []
        self.patches = patches
        self.offset = 0
        self.rows = 0
        blocks, size = block_sizes(patches.length)
        self._blocks, self._size = blocks, size
        self._gram = torch.zeros(patches.groups * blocks, size, size, dtype=torch.float64)
        self._sum = torch.zeros(patches.groups, patches.length, dtype=torch.float64)
        self._held = HeldPatches(patches)

    def forward(self, x: Tensor) -> Tensor:
        """Add the patches of ``x`` and return it."""
        if not x.numel():
            return x
        rows, samples = self.patches.cut(x.detach(), self.offset)
        held = held_out(samples)
        self._held.add(rows[:, held])
        # Contiguous; otherwise a product of many small matrices copies each separately.
        rows = rows[:, ~held].contiguous()
        self.rows += rows.shape[1]
        self._sum += rows.sum(1).cpu()
        filling = self._blocks * self._size - self.patches.length
        rows = pad(rows, (0, filling)) if filling else rows
        cut = rows.reshape(*rows.shape[:2], self._blocks, self._size).transpose(1, 2).flatten(0, 1)
        self._gram += (cut.transpose(1, 2) @ cut).cpu()
        return x

    def result(self) -> LayerInputs | None:
        """Return the record; None if not all of it is finite in float32."""
        totals = (self._gram, self._sum)
        gram, mean = ((total / max(1, self.rows)).float() for total in totals)
        if not bool(torch.isfinite(gram).all() & torch.isfinite(mean).all()):
            return None
        return LayerInputs(gram, mean, self.rows, self._held.rows)


def held_out(samples: Tensor) -> Tensor:
    """Return which rows are held out: rows of every fourth sample, or every fourth row.

    The choice does not depend on other calls, so that merged parts equal the whole.
    """
    few = not len(samples) or int(samples[-1]) + 1 < HELD_OUT
    numbers = torch.arange(len(samples), device=samples.device) if few else samples
    return numbers % HELD_OUT == HELD_OUT - 1
