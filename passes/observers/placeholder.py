"""A mark on an edge whose conversion needs no calibration: dynamic ranges and casts."""

from __future__ import annotations

from torch import Tensor, nn

from quantfx.passes.layers.saved_flags import SavedFlags
from quantfx.passes.quant.spec import CastSpec, QuantSpec


class PlaceholderObserver(nn.Module):
    """Identity that records nothing.

    Attributes:
        spec: A dynamic spec, whose range each call finds, or a cast.
        label: Name of the tensor, used in errors.
    """

    def __init__(self, spec: QuantSpec | CastSpec, label: str = "") -> None:
        super().__init__()
        self.spec = spec
        self.label = label

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x``."""
        return x


class PlaceholderFakeQuantize(SavedFlags, PlaceholderObserver):
    """Rounds without a record; a subclass defines how.

    Attributes:
        quantizing: Whether to round; False makes it the identity.
    """

    saved = ("quantizing",)

    def __init__(self, spec: QuantSpec | CastSpec, label: str = "") -> None:
        super().__init__(spec, label)
        self.quantizing = True
