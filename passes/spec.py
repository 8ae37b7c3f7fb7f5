"""What a quantized tensor must look like: a value, bound by a backend to a template's spec name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from quantfx.passes.errors import SpecError

ObserverName = Literal["histogram", "min_max", "moving_average", "mse", "weight_mse"]
PER_CHANNEL = ("min_max", "weight_mse")
PairBound = Literal["none", "blocks", "adjacent"]

INT8_RANGES = {torch.uint8: (0, 255), torch.int8: (-128, 127)}


@dataclass(frozen=True)
class QuantSpec:
    """Dtype, integer range, scheme and observer of one kind of tensor.

    Attributes:
        dtype: ``torch.uint8`` or ``torch.int8``.
        quant_min: Smallest integer used, inclusive.
        quant_max: Largest integer used, inclusive.
        symmetric: True fixes the zero point at the middle of the range; False is affine.
        axis: Channel axis of a per-channel spec; None is per-tensor.
        observer: Which observer finds the range; per-channel specs use ``min_max`` or
            ``weight_mse``, the others are for per-tensor specs.
        eps: Lower bound of the scale.
        pair_bound: How far the scale of a per-channel weight must grow so that no sum of two
            u8 x s8 products can leave a signed 16-bit register (see ``passes/qparams.py``).
            ``blocks`` pairs input channels (0,1), (2,3), ... (convolutions); ``adjacent`` pairs
            every two neighbours (linear, whose GEMM may start a block at any K).
    """

    dtype: torch.dtype
    quant_min: int
    quant_max: int
    symmetric: bool = False
    axis: int | None = None
    observer: ObserverName = "histogram"
    eps: float = 2**-12
    pair_bound: PairBound = "none"

    def __post_init__(self) -> None:
        if self.dtype not in INT8_RANGES:
            raise SpecError(f"dtype {self.dtype} is not an 8-bit integer: use uint8 or int8")
        low, high = INT8_RANGES[self.dtype]
        if not low <= self.quant_min < self.quant_max <= high:
            raise SpecError(
                f"range [{self.quant_min}, {self.quant_max}] does not fit {self.dtype}, "
                f"which holds [{low}, {high}]"
            )
        if self.axis is not None and self.observer not in PER_CHANNEL:
            raise SpecError(
                f"a per-channel spec observes with one of {PER_CHANNEL}, not '{self.observer}'"
            )
        if self.observer == "weight_mse" and (self.axis is None or not self.symmetric):
            raise SpecError("'weight_mse' is for symmetric per-channel specs")
        if self.pair_bound != "none" and self.axis is None:
            raise SpecError("pair_bound needs a per-channel spec: set axis")

    @property
    def dtype_name(self) -> str:
        """``u8`` or ``s8``."""
        return "u8" if self.dtype == torch.uint8 else "s8"

    def __str__(self) -> str:
        """One word list, e.g. ``u8[0,255] affine`` or ``s8[-128,127] symmetric per-channel(0)``."""
        parts = [
            f"{self.dtype_name}[{self.quant_min},{self.quant_max}]",
            "symmetric" if self.symmetric else "affine",
        ]
        if self.axis is not None:
            parts.append(f"per-channel({self.axis})")
        if self.pair_bound != "none":
            parts.append(f"pair-bounded({self.pair_bound})")
        return " ".join(parts)
