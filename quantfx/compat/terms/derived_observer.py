"""An observer whose qparams follow from other observers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn


class DerivedObserverOrFakeQuantize(nn.Module):
    """Identity; the spec's function computes its qparams from other observers.

    Args:
        spec: A derived quantization spec.
        obs_or_fqs: The observers of the places that the spec names.
    """

    def __init__(self, spec: Any, obs_or_fqs: Sequence[nn.Module]) -> None:
        super().__init__()
        self.dtype = spec.dtype
        self.obs_or_fqs = list(obs_or_fqs)  # a list, which does not register their state here
        self.derive_qparams_fn = spec.derive_qparams_fn
        self.quant_min = spec.quant_min
        self.quant_max = spec.quant_max
        self.qscheme = spec.qscheme
        self.ch_axis = spec.ch_axis

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x``."""
        return x

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """Return scale and zero point."""
        scale, zero_point = self.derive_qparams_fn(self.obs_or_fqs)
        return scale, zero_point
