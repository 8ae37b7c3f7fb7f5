"""Weights of convolutions and linears, packed for one of torch's quantized engines."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn.functional import pad

from quantfx.backends.quantized.quantized_tensors import pack_with, per_channel, per_tensor
from quantfx.passes.graph.conv_geometry import Geometry
from quantfx.passes.graph.packed import Packed
from quantfx.patterns.schema import resolve_op


class PackedLayer(Packed):
    """Integer weight, scales and bias of a layer as ``quantized.*_prepack`` returns them.

    Args:
        prepack: Name of the operator, e.g. ``quantized.linear_prepack.default``.
        engine: Engine whose kernels read it.
        geometry: Geometry of a convolution.
        scale: Scale of a weight with one scale; None for a weight with many. Zero points are 0.
        grown: Number of zeros to add after the kernel in each dimension.
    """

    def __init__(
        self,
        prepack: str,
        engine: str,
        geometry: Geometry | None = None,
        scale: float | None = None,
        grown: tuple[int, ...] = (),
    ) -> None:
        super().__init__()
        self.prepack = prepack
        self.engine = engine
        self.geometry = geometry
        self.scale = scale
        self.add_dimensions = grown

    def pack(self, *tensors: Any) -> Any:
        """Return the packed parameters.

        Args:
            tensors: int8 weight, scales (None for one scale) and float bias (may be None).
        """
        weight, scales, bias = tensors
        if any(self.add_dimensions):
            ends = [each for size in reversed(self.add_dimensions) for each in (0, size)]
            weight = pad(weight, ends)
        quantized = self._quantize(weight, scales)
        return pack_with(self.engine, resolve_op(self.prepack), quantized, bias, *self._literals())

    def _quantize(self, weight: Tensor, scales: Tensor | None) -> Tensor:
        if scales is None:
            return per_tensor(weight, float(self.scale or 1.0), 0)
        return per_channel(weight, scales, 0)

    def _literals(self) -> tuple[Any, ...]:
        shape = self.geometry
        if shape is None:
            return ()
        fronts = [front for front, _ in shape.padding]
        if shape.output_padding is None:
            return (shape.stride, fronts, shape.dilation, shape.groups)
        return (shape.stride, fronts, shape.output_padding, shape.dilation, shape.groups)

    def extra_repr(self) -> str:
        """The operator and the engine."""
        return f"{self.prepack}, engine={self.engine}"


class PackedHalf(Packed):
    """Weight in half precision and bias of a linear, as ``quantized.linear_prepack_fp16`` packs it.

    Args:
        engine: Engine whose kernels read it.
    """

    def __init__(self, engine: str) -> None:
        super().__init__()
        self.engine = engine

    def pack(self, *tensors: Any) -> Any:
        """Return the packed parameters.

        Args:
            tensors: Weight, rounded to half precision if needed, and float bias (may be None).
        """
        weight, bias = tensors
        prepack = resolve_op("quantized.linear_prepack_fp16.default")
        return pack_with(self.engine, prepack, weight.float(), bias)

    def extra_repr(self) -> str:
        """The engine."""
        return f"engine={self.engine}"
