"""The rounding of a tensor that is stored in a narrower float dtype."""

from __future__ import annotations

from torch import Tensor

from quantfx.passes.observers.placeholder import PlaceholderFakeQuantize
from quantfx.passes.quant.spec import CastSpec


class CastFakeQuantize(PlaceholderFakeQuantize):
    """Rounds to the narrow dtype and continues in the wide dtype.

    Args:
        spec: Names the dtype.
        label: Name of the tensor, used in errors.
    """

    def __init__(self, spec: CastSpec, label: str = "") -> None:
        super().__init__(spec, label)
        self.dtype = spec.dtype

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` rounded, in its own dtype; the gradient passes through."""
        return x.to(self.dtype).to(x.dtype) if self.quantizing else x
