"""Choose the torch engine that computes an operator, when its weight is packed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from quantfx.passes.pipeline.kernel_family import Saturation
from quantfx.patterns.errors import QuantfxError, unknown_name

ENGINES = ("x86", "fbgemm", "onednn", "qnnpack")
# Operators whose engine can be chosen.
OPS = ("conv", "conv_transpose", "linear", "linear_dynamic", "linear_fp16", "rnn", "rnn_fp16")

# On AVX512 with VNNI fbgemm's linears are a little faster below, onednn's above; onednn uses AMX if
# available.
MANY_ROWS = 128
_FP16 = ("x86", "fbgemm")
_BY_RULE = "x86"  # as in torch, fbgemm for some operators and onednn for others
_EXACT = "qnnpack"


@dataclass(frozen=True)
class Engines:
    """The engine of each operator.

    Attributes:
        chosen: ``(operator, engine)`` pairs that the user chose; a rule gives others fbgemm or
            onednn.
    """

    chosen: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, engine: str | None = None, by_op: Mapping[str, str] | None = None) -> Engines:
        """Return the engines that a user asks for.

        Args:
            engine: Engine of every operator that has it; None and ``x86`` choose by rule.
            by_op: Engines of single operators, e.g. ``{"linear": "onednn"}``.

        Raises:
            QuantfxError: there is no such engine or operator, or the operator lacks the engine.
        """
        chosen: dict[str, str] = {}
        if engine is not None:
            _require(engine, ENGINES, "engine")
            chosen = {op: engine for op in OPS if engine in available(op)}
        for op, name in (by_op or {}).items():
            _require(op, OPS, "operator with engines")
            _require(name, ENGINES, "engine")
            if name not in available(op):
                raise unknown_name(QuantfxError, "engine", name, available(op), of=f"'{op}'")
            chosen[op] = name
        by_name = {op: name for op, name in sorted(chosen.items()) if name != _BY_RULE}
        return cls(tuple(by_name.items()))

    def get(self, op: str) -> str | None:
        """Return the engine that the user chose for ``op``; None leaves it to a rule."""
        return dict(self.chosen).get(op)

    def linear(self, op: str, rows: int | None) -> str:
        """Return the engine of a linear.

        Args:
            op: ``linear`` or ``linear_dynamic``.
            rows: Number of input rows; None if free.
        """
        many = rows is not None and rows >= MANY_ROWS
        return self.get(op) or ("onednn" if many else "fbgemm")

    def conv(self, inputs: int, saturating: bool) -> str | None:
        """Return the engine of a convolution; None if the chosen engine computes it wrongly.

        torch 2.13, AVX512 with VNNI: onednn is wrong in some thirty of 9,000 random convolutions,
        all with one channel per group; fbgemm in none. On CPUs without VNNI onednn is right, and
        fbgemm adds products of neighbouring pixels, which pair-bounded scales do not bound.

        Args:
            inputs: Input channels of a group.
            saturating: Whether the CPU has no VNNI.
        """
        asked = self.get("conv")
        if inputs > 1 or saturating:
            return asked or "onednn"
        return None if asked == "onednn" else asked or "fbgemm"

    def conv_transpose(self, shape: Transposed) -> str | None:
        """Return an engine that computes a transposed convolution right; None if none does."""
        asked = self.get("conv_transpose")
        tried = ("onednn", "fbgemm") if asked is None else (asked,)
        return next((engine for engine in tried if shape.is_right_on(engine)), None)

    def other(self, op: str) -> str:
        """Return the engine of an operator that only fbgemm packs, or that all pack alike."""
        return self.get(op) or "fbgemm"

    @property
    def saturates(self) -> Saturation:
        """The sums of two products that some engine saturates on CPUs without VNNI."""
        ops = ("conv", "conv_transpose", "linear", "linear_dynamic")
        if all(self.get(op) == _EXACT for op in ops):
            return "none"
        return "any" if self.get("conv") == "fbgemm" else "neighbours"

    @property
    def runs_qnnpack(self) -> bool:
        """Whether operators without weights must also be right on qnnpack's kernels.

        They have no engine, but read torch's global engine when they run.
        """
        return _EXACT in (*dict(self.chosen).values(), torch.backends.quantized.engine)


def available(op: str) -> tuple[str, ...]:
    """Return the engines that have ``op``."""
    return _FP16 if op.endswith("fp16") else ENGINES


def engines_of(kernel: str) -> tuple[str, ...]:
    """Return the engines that a kernel can be packed for; none if it needs no packing."""
    if kernel.startswith("quantized.linear_dynamic_fp16"):
        return available("linear_fp16")
    if kernel == "quantized.conv_transpose3d":
        return tuple(engine for engine in ENGINES if engine != _EXACT)
    packed = ("quantized.conv", "quantized.linear", "aten.quantized_", "quantized.quantized_")
    return ENGINES if kernel.startswith(packed) else ()


@dataclass(frozen=True, kw_only=True)
class Transposed:
    """The properties of a transposed convolution that decide which engines are right.

    Attributes:
        inputs: Input channels of a group.
        outputs: Output channels of a group.
        kernel: Size of the kernel in each dimension, without dilation.
        extent: Size with dilation.
        stride: Stride in each dimension.
        padded: Whether there is output padding.
    """

    inputs: int
    outputs: int
    kernel: tuple[int, ...]
    extent: tuple[int, ...]
    stride: tuple[int, ...]
    padded: bool

    def is_right_on(self, engine: str) -> bool:
        """Whether ``engine`` computes it within a step of the float result.

        Measured on torch 2.13, on hundreds of random configurations per rank and engine. onednn is
        wrong if a group's input and output channels differ or the stride leaves gaps between
        windows, and refuses output padding. fbgemm is wrong in two dimensions with a kernel of 2
        and channels divisible by 8; qnnpack is wrong in three dimensions.
        """
        gaps = any(s > e for s, e in zip(self.stride, self.extent, strict=True))
        eights = self.inputs % 8 == 0 and self.outputs % 8 == 0
        on_fbgemm = not (len(self.kernel) == 2 and 2 in self.kernel and eights)
        on_onednn = self.inputs == self.outputs and not self.padded and not gaps
        right = {
            "onednn": on_onednn,
            "fbgemm": on_fbgemm,
            "qnnpack": len(self.kernel) < 3,
        }
        return right[engine]


def _require(name: str, known: tuple[str, ...], what: str) -> None:
    if name not in known:
        raise unknown_name(QuantfxError, what, name, known)
