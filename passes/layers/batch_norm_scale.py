"""The scale that a batch norm will put into the weights before it."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from quantfx.passes.layers.saved_flags import SavedFlags


class BatchNormScale(SavedFlags):
    """``gamma / sqrt(var + eps)``, by which training scales a weight before it rounds it.

    The result is divided by it again. Per channel the two cancel but for the rounding, so no
    gradient runs through them: it would be that of the rounding error alone.

    Attributes:
        quantizing: False, while nothing is rounded, makes the scale 1: then the graph computes what
            the float model does, without the detour.
    """

    saved: ClassVar[tuple[str, ...]] = ("quantizing",)

    def __init__(self) -> None:
        super().__init__()
        self.quantizing = True

    @torch.no_grad()
    def forward(self, gamma: Tensor | None, var: Tensor, eps: float) -> Tensor:
        """Return the scale, shape ``(channels,)``, in the dtype of ``var``.

        A scale of 0, where a residual branch starts, counts as 1: what is multiplied by 0 cannot be
        divided again, and gamma would never get a gradient.
        """
        if not self.quantizing:
            return torch.ones_like(var)
        scale = raw_scale(gamma, var, eps)
        return scale.masked_fill(scale == 0, 1.0)


def raw_scale(gamma: Tensor | None, var: Tensor, eps: float) -> Tensor:
    """Return ``gamma / sqrt(var + eps)`` in the dtype of ``var``, shape ``(channels,)``."""
    deviation = torch.sqrt(var + eps)
    return deviation.reciprocal() if gamma is None else gamma / deviation
