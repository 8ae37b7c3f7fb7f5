"""Whether a graph is training, as a value that its operators take."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Mode(nn.Module):
    """Yields its own ``training`` flag, so that ``train()`` and ``eval()`` switch operators.

    A graph calls it and passes the result on: ``batch_norm(..., training=mode())``.

    Attributes:
        frozen: Yield False even while training.
    """

    def __init__(self) -> None:
        super().__init__()
        self.frozen = False

    def forward(self) -> bool:
        """Return whether to behave as in training."""
        return self.training and not self.frozen

    def get_extra_state(self) -> Tensor:
        """Return the flag for ``state_dict``, as a tensor."""
        return torch.tensor([self.frozen])

    def set_extra_state(self, state: Tensor) -> None:
        """Take the flag from a ``state_dict``."""
        self.frozen = bool(state[0])
