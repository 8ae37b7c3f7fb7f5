"""The scale that a batch norm will put into the weights before it."""

from __future__ import annotations

import torch
from torch import Tensor

from quantfx.passes.layers.saved_flags import SavedFlags


class BatchNormScale(SavedFlags):
    """``gamma / sqrt(var + eps)``: training scales a weight by it before rounding.

    The layer's result is divided by the same scale. Per channel the two cancel except for rounding,
    so no gradient flows through them: it would be the gradient of the rounding error only.

    Attributes:
        quantizing: While False, nothing is rounded and the scale is 1: the graph then computes
            exactly what the float model computes.
    """

    saved = ("quantizing",)

    def __init__(self) -> None:
        super().__init__()
        self.quantizing = True

    @torch.no_grad()
    def forward(self, gamma: Tensor | None, var: Tensor, eps: float) -> Tensor:
        """Return the scale, shape ``(channels,)``, in the dtype of ``var``.

        A scale of 0 (gamma of a residual branch often starts at 0) counts as 1: a product with 0
        cannot be divided back, and gamma would never get a gradient.
        """
        if not self.quantizing:
            return torch.ones_like(var)
        scale = raw_scale(gamma, var, eps)
        return scale.masked_fill(scale == 0, 1.0)


def raw_scale(gamma: Tensor | None, var: Tensor, eps: float) -> Tensor:
    """Return ``gamma / sqrt(var + eps)`` in the dtype of ``var``, shape ``(channels,)``."""
    deviation = torch.sqrt(var + eps)
    return deviation.reciprocal() if gamma is None else gamma / deviation
