"""What a quantized tensor must look like: a value, bound by a backend to a template's spec name."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import nn

from quantfx.passes.errors import SpecError
from quantfx.passes.graph.dtypes import dtype_name
from quantfx.passes.graph.graphs import Site
from quantfx.passes.quant.scale_floor import SCALE_FLOOR

ObserverName = Literal["histogram", "min_max", "moving_average", "mse", "weight_mse"]
PER_CHANNEL = ("min_max", "weight_mse")
# Kernels convert this many values of a group at once.
LEAST_GROUP = 32
PairBound = Literal["none", "blocks", "adjacent"]

INTEGER_RANGES = {
    torch.uint8: (0, 255),
    torch.int8: (-128, 127),
    torch.int16: (-(2**15), 2**15 - 1),
    torch.int32: (-(2**31), 2**31 - 1),
}
# Dtypes that specs from elsewhere may use as well; quantfx's own templates do not.
RANGES = INTEGER_RANGES | {
    torch.uint16: (0, 2**16 - 1),
    torch.float8_e4m3fn: (-448, 448),
    torch.float8_e5m2: (-57344, 57344),
}


class MakeObserver(Protocol):
    """Makes the observer of a spec; compared by value, so that equal specs can share."""

    def __call__(self, spec: QuantSpec, label: str) -> nn.Module:
        """Return a fresh observer for ``spec``; ``label`` names the tensor in errors."""
        ...


@dataclass(frozen=True)
class QuantSpec:
    """Dtype, integer range, scheme and observer of one kind of tensor.

    Attributes:
        dtype: ``torch.uint8`` or ``torch.int8``; ``torch.int16`` and ``torch.int32`` for tensors
            beside the matrix products, e.g. a bias.
        quant_min: Smallest integer used, inclusive.
        quant_max: Largest integer used, inclusive.
        symmetric: True fixes the zero point at the middle of the range; False is affine.
        axis: Channel axis of a per-channel spec; None is per-tensor.
        observer: The observer that finds the range, by name, or a factory of observers. Per-channel
            specs take only ``min_max`` or ``weight_mse``; ``weight_mse`` is for symmetric
            per-channel specs.
        eps: Lower bound of the scale, at least ``SCALE_FLOOR``; by default the smallest scale that
            kernels compute with exactly.
        pair_bound: How far the scale of a per-channel weight must grow so that no sum of two
            u8 x s8 products can leave a signed 16-bit register (see ``passes/quant/qparams.py``).
            ``blocks`` pairs input channels (0,1), (2,3), ... (convolutions); ``adjacent`` pairs
            every two neighbours (linear, whose GEMM may start a block at any K).
        dynamic: Whether each call finds the range in the tensor itself; nothing is observed.
        group: How many values of a matrix row (axis 0) share a scale; None for all of them.
        may_group: Whether the kernels also take rows in groups, so that a config may set ``group``.
    """

    dtype: torch.dtype
    quant_min: int
    quant_max: int
    symmetric: bool = False
    axis: int | None = None
    observer: ObserverName | MakeObserver = "histogram"
    eps: float = SCALE_FLOOR
    pair_bound: PairBound = "none"
    dynamic: bool = False
    group: int | None = None
    may_group: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in RANGES:
            message = f"dtype {self.dtype} is not an integer to quantize to"
            raise SpecError(message, rule="spec-dtype", site="dtype", fix="use uint8 or int8")
        low, high = RANGES[self.dtype]
        if not low <= self.quant_min < self.quant_max <= high:
            raise SpecError(
                f"range [{self.quant_min}, {self.quant_max}] does not fit {self.dtype}, which "
                f"holds [{low}, {high}]",
                rule="number-range",
                site="quant_min, quant_max",
            )
        named = isinstance(self.observer, str)
        if self.axis is not None and named and self.observer not in PER_CHANNEL:
            raise SpecError(
                f"a per-channel spec observes with one of {PER_CHANNEL}, not '{self.observer}'",
                rule="spec-observer",
                site=str(self.observer),
            )
        if self.observer == "weight_mse" and (self.axis is None or not self.symmetric):
            message = "'weight_mse' is for symmetric per-channel specs"
            raise SpecError(message, rule="spec-observer", site=str(self.observer))
        if self.observer == "weight_mse" and not self.quant_min < 0 < self.quant_max:
            raise SpecError(
                f"'weight_mse' needs a range around 0, not [{self.quant_min}, {self.quant_max}]",
                rule="spec-observer",
                site=str(self.observer),
                fix="use 'min_max'",
            )
        if not 0 < self.eps < math.inf:
            raise SpecError(
                f"eps={self.eps} is not positive and finite", rule="number-range", site="eps"
            )
        if self.eps < SCALE_FLOOR:
            message = f"eps={self.eps:g} is below 2^-126: the reciprocal of such a scale overflows"
            raise SpecError(message, rule="number-range", site="eps")
        if self.pair_bound != "none" and self.axis is None:
            message = "pair_bound needs a per-channel spec"
            raise SpecError(message, rule="pair-bound", site="pair_bound", fix="set axis")
        self._require_axis()

    def _require_axis(self) -> None:
        """Refuse groups without channels, and channels whose range is found in each call."""
        if self.group is not None and (self.axis != 0 or self.group < 2):
            message = f"group={self.group} needs axis 0 and two values at least"
            raise SpecError(message, rule="number-range", site="group")
        if self.may_group and self.axis != 0:
            message = "may_group is for weights with a scale for each row"
            raise SpecError(message, rule="number-range", site="may_group", fix="set axis=0")
        if self.dynamic and self.axis is not None:
            raise SpecError(
                "a dynamic spec is per-tensor", rule="per-tensor", site="axis", fix="leave axis out"
            )

    @property
    def dtype_name(self) -> str:
        """``u8``, ``s8``, ``s16`` or ``s32``."""
        return dtype_name(self.dtype)

    def __str__(self) -> str:
        """E.g. ``u8[0,255] affine`` or ``s8[-128,127] symmetric per-channel(0)``."""
        parts = [
            f"{self.dtype_name}[{self.quant_min},{self.quant_max}]",
            "symmetric" if self.symmetric else "affine",
        ]
        if self.axis is not None:
            parts.append(f"per-channel({self.axis})")
        if self.group is not None:
            parts.append(f"groups({self.group})")
        if self.pair_bound != "none":
            parts.append(f"pair-bounded({self.pair_bound})")
        if self.dynamic:
            parts.append("dynamic")
        return " ".join(parts)


@dataclass(frozen=True)
class CastSpec:
    """A tensor that is stored in a narrower float dtype, but computed with in its own dtype.

    Attributes:
        dtype: ``torch.float16`` or ``torch.bfloat16``.
    """

    dtype: torch.dtype

    def __post_init__(self) -> None:
        if self.dtype not in (torch.float16, torch.bfloat16):
            message = f"dtype {self.dtype} is not a narrow float"
            raise SpecError(message, rule="spec-dtype", site="dtype", fix="use float16 or bfloat16")

    @property
    def dtype_name(self) -> str:
        """``f16`` or ``bf16``."""
        return dtype_name(self.dtype)

    def __str__(self) -> str:
        """E.g. ``f16 cast``."""
        return f"{self.dtype_name} cast"


@dataclass(frozen=True)
class SharedSpec:
    """The spec and qparams of another site; the share pass substitutes that site's spec.

    Attributes:
        site: The site to share with, quantized by any annotation; it may come later in the graph.
    """

    site: Site

    def __str__(self) -> str:
        """E.g. ``same as conv2d.input``."""
        return f"same as {self.site}"


Concrete = QuantSpec | CastSpec
Spec = Concrete | SharedSpec
