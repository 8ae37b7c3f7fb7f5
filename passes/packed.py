"""Modules that keep what a kernel makes of constants: computed at the first call, then kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn


class Packed(nn.Module, ABC):
    """``pack(*tensors)``, computed when it is first called.

    What kernels pack cannot be copied or stored: a copy, and a module that was pickled, packs anew.
    So does one whose first tensor was written to. A compiler that traces sees the packing itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self._packed: Any = None
        self._packed_from: tuple[int, int] | None = None

    @abstractmethod
    def pack(self, *tensors: Any) -> Any:
        """Return what the kernel takes in the place of ``tensors``."""

    def forward(self, *tensors: Any) -> Any:
        """Return what ``pack`` made of ``tensors``, of which the first is the weight."""
        weight = tensors[0]
        if torch.compiler.is_compiling() or type(weight) not in (Tensor, nn.Parameter):
            return self.pack(*tensors)
        # Inference tensors keep no count of writes; they are rarely written to.
        count = 0 if weight.is_inference() else weight._version  # pyright: ignore[reportPrivateUsage]
        version = weight.data_ptr(), count
        if self._packed is None or self._packed_from != version:
            self._packed, self._packed_from = self.pack(*tensors), version
        return self._packed

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_packed": None, "_packed_from": None}
