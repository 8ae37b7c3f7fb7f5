"""Switches of a module that travel in its ``state_dict``."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn


class SavedFlags(nn.Module):
    """Saves the named bool attributes as one tensor: code that copies states may expect tensors.

    Attributes:
        saved: Names of the attributes.
    """

    saved: ClassVar[tuple[str, ...]]

    def get_extra_state(self) -> Tensor:
        """Return the flags in order, dtype bool."""
        return torch.tensor([bool(getattr(self, name)) for name in self.saved])

    def set_extra_state(self, state: Tensor) -> None:
        """Set the flags from ``state``."""
        for name, flag in zip(self.saved, state.tolist(), strict=True):
            setattr(self, name, flag)
