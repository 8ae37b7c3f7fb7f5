"""Whether a graph is training, as a value that its operators take as an argument."""

from __future__ import annotations

from typing import ClassVar

from quantfx.passes.layers.saved_flags import SavedFlags


class Mode(SavedFlags):
    """Yields its own ``training`` flag, so that ``train()`` and ``eval()`` switch operators.

    A graph calls it and passes the result on: ``batch_norm(..., training=mode())``.

    Attributes:
        frozen: Yield False even while training.
    """

    saved: ClassVar[tuple[str, ...]] = ("frozen",)

    def __init__(self) -> None:
        super().__init__()
        self.frozen = False

    def forward(self) -> bool:
        """Return whether to behave as in training."""
        return self.training and not self.frozen
