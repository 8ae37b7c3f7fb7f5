"""An observer that also records each channel, so that its tensor can still be rescaled."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from quantfx.passes.observers.channel_record import ChannelRecord
from quantfx.passes.observers.histogram import HistogramObserver
from quantfx.passes.observers.histogram_record import HistogramRecord
from quantfx.passes.observers.mse import MinSquaredErrorObserver
from quantfx.passes.observers.observer import Observer
from quantfx.passes.quant.qparams import QParams
from quantfx.passes.quant.spec import QuantSpec

RangeSearch = Literal["histogram", "mse"]
_SEARCHES: dict[RangeSearch, type[HistogramRecord]] = {
    "histogram": HistogramObserver,
    "mse": MinSquaredErrorObserver,
}
RANGE_SEARCHES: tuple[RangeSearch, ...] = tuple(_SEARCHES)


@dataclass(frozen=True)
class ByChannel:
    """Makes the observer of a spec: ``QuantSpec(..., observer=ByChannel())``.

    Attributes:
        search: How the final range is found.
    """

    search: RangeSearch = "histogram"

    def __call__(self, spec: QuantSpec, label: str) -> ChannelObserver:
        """Return a fresh observer."""
        return ChannelObserver(spec, label, self.search)


class ChannelObserver(Observer):
    """Records the tensor as a whole, and each channel of its last dimension.

    Args:
        spec: A per-tensor spec.
        label: Name of the tensor, used in errors.
        search: How the range is found.

    Attributes:
        whole: Observer of the whole tensor, which decides its qparams.
        channels: Record of each channel, for ``divide_by``.
    """

    def __init__(self, spec: QuantSpec, label: str, search: RangeSearch) -> None:
        super().__init__(spec, label)
        self.search: RangeSearch = search
        self.whole = self._fresh()
        self.channels = ChannelRecord()

    def observe(self, x: Tensor) -> None:
        """Record ``x``, shape ``(..., channels)``."""
        self.whole.observe(x)
        self.channels.observe(x)

    @property
    def observed(self) -> bool:
        """Whether any value was recorded."""
        return self.whole.observed

    @property
    def extremes(self) -> tuple[Tensor, Tensor] | None:
        """The extremes that ``whole`` recorded."""
        return self.whole.extremes

    def calculate_qparams(self) -> QParams:
        """Return the qparams of the tensor without rescaling."""
        return self.whole.calculate_qparams()

    def divide_by(self, divisor: Tensor) -> Observer:
        """Return an observer as if ``x / divisor`` had been recorded.

        Args:
            divisor: Positive, float32, shape ``(channels,)``.
        """
        self.require_observed()
        observer = self._fresh()
        histogram, low, high = self.channels.histogram(divisor, observer.bins)
        observer.histogram.copy_(histogram)
        observer.min_val.copy_(low)
        observer.max_val.copy_(high)
        return observer

    def _fresh(self) -> HistogramRecord:
        return _SEARCHES[self.search](replace(self.spec, observer=self.search), self.label)
