"""Fake quantization with a range found in each call, as dynamic kernels find it."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from quantfx.passes.fake_quantize import fake_quantized
from quantfx.passes.observer import QParams
from quantfx.passes.placeholder_observer import PlaceholderObserver
from quantfx.passes.qdq import CHOOSE_QPARAMS, CHOOSE_QPARAMS_SYMMETRIC
from quantfx.passes.spec import QuantSpec

# As in ``uncalibrated.py``: against division by zero only.
_EPS = torch.finfo(torch.float32).eps


class DynamicFakeQuantize(PlaceholderObserver):
    """Rounds each tensor with the qparams of its own range, in training and evaluation alike.

    Args:
        spec: A dynamic spec.
        label: Name of the tensor, used in errors.

    Attributes:
        quantizing: False makes it the identity.
    """

    verb: ClassVar[str] = "fake-quantize"

    def __init__(self, spec: QuantSpec, label: str = "") -> None:
        super().__init__(spec, label)
        self.dynamic = spec
        self.quantizing = True

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` rounded, in its own dtype."""
        if not self.quantizing or not x.numel():
            return x
        spec = self.dynamic
        choose = CHOOSE_QPARAMS_SYMMETRIC if spec.symmetric else CHOOSE_QPARAMS
        value = x.float()
        with torch.no_grad():
            given = (spec.quant_min, spec.quant_max, _EPS, spec.dtype)
            scale, zero_point = choose(value.detach(), *given)
        qparams = QParams(scale.float().reshape(()), zero_point.reshape(()), spec)
        return fake_quantized(value, qparams).to(x.dtype)

    def get_extra_state(self) -> Tensor:
        """Return the flag for ``state_dict``, as a tensor."""
        return torch.tensor([self.quantizing])

    def set_extra_state(self, state: Tensor) -> None:
        """Take the flag from a ``state_dict``."""
        self.quantizing = bool(state[0])
