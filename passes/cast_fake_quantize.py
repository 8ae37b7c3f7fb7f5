"""The rounding of a tensor that is kept in a narrower float dtype."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from quantfx.passes.placeholder_observer import PlaceholderObserver
from quantfx.passes.spec import CastSpec


class CastFakeQuantize(PlaceholderObserver):
    """Rounds to the narrow dtype and goes on in the wide one.

    Args:
        spec: Names the dtype.
        label: Name of the tensor, used in errors.

    Attributes:
        quantizing: False makes it the identity.
    """

    verb: ClassVar[str] = "fake-quantize"

    def __init__(self, spec: CastSpec, label: str = "") -> None:
        super().__init__(spec, label)
        self.dtype = spec.dtype
        self.quantizing = True

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` rounded, in its own dtype; the gradient passes."""
        return x.to(self.dtype).to(x.dtype) if self.quantizing else x

    def get_extra_state(self) -> Tensor:
        """Return the flag for ``state_dict``, as a tensor."""
        return torch.tensor([self.quantizing])

    def set_extra_state(self, state: Tensor) -> None:
        """Take the flag from a ``state_dict``."""
        self.quantizing = bool(state[0])
