"""Weights of recurrent layers and cells, packed for one of torch's quantized engines."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from quantfx.backends.quantized.quantized_tensors import pack_with, quantize_signed
from quantfx.passes.graph.packed import Packed
from quantfx.passes.observers.make_observer import make_observer
from quantfx.passes.observers.observer import Observer
from quantfx.passes.quant.spec import CastSpec, Concrete
from quantfx.patterns.schema import resolve_op

_PREPACK = resolve_op("quantized.linear_prepack.default")
_PREPACK_FP16 = resolve_op("quantized.linear_prepack_fp16.default")
_CELL = resolve_op("quantized.make_quantized_cell_params_dynamic.default")
_CELL_FP16 = resolve_op("quantized.make_quantized_cell_params_fp16.default")


class PackedCell(Packed):
    """Both weights and the biases of a cell, packed for its kernel.

    Args:
        engine: Engine whose kernels read it.
        spec: Spec of the weights: int8 or half precision.
    """

    def __init__(self, engine: str, spec: Concrete) -> None:
        super().__init__()
        self.engine = engine
        self.spec = spec

    def pack(self, *tensors: Any) -> Any:
        """Return packed ``w_ih`` and ``w_hh``, ``b_ih`` and ``b_hh``; a bias may be None."""
        w_ih, w_hh, b_ih, b_hh = tensors
        b_ih = w_ih.new_zeros(len(w_ih)) if b_ih is None else b_ih
        b_hh = w_hh.new_zeros(len(w_hh)) if b_hh is None else b_hh
        return self._weight(w_ih, b_ih), self._weight(w_hh, b_hh), b_ih, b_hh

    def _weight(self, weight: Tensor, bias: Tensor) -> Any:
        if isinstance(self.spec, CastSpec):
            return pack_with(self.engine, _PREPACK_FP16, weight, bias)
        observer = make_observer(self.spec, "a recurrent weight")
        if not isinstance(observer, Observer):
            raise TypeError(f"'{self.spec}' does not observe weights")
        with torch.no_grad():
            observer.see_constant(weight)
            qparams = observer.qparams_of(weight)
        return pack_with(self.engine, _PREPACK, quantize_signed(weight, qparams.scale), bias)

    def extra_repr(self) -> str:
        """The spec and the engine."""
        return f"{self.spec}, engine={self.engine}"


class PackedRnn(PackedCell):
    """The weights of each layer and direction of an LSTM or GRU.

    Args:
        engine: Engine whose kernels read it.
        spec: Spec of the weights.
        has_biases: Whether the parameters include biases; else zeros stand in for them.
        reduce_range: Whether the kernel multiplies with activations in 0..127.
    """

    def __init__(self, engine: str, spec: Concrete, has_biases: bool, reduce_range: bool) -> None:
        super().__init__(engine, spec)
        self.has_biases = has_biases
        self.reduce_range = reduce_range

    def pack(self, *tensors: Any) -> Any:
        """Return cell parameters, for weights and biases in torch's order."""
        step = 4 if self.has_biases else 2
        cells = [tensors[i : i + step] for i in range(0, len(tensors), step)]
        none: tuple[Any, ...] = () if self.has_biases else (None, None)
        return [self._cell(*super(PackedRnn, self).pack(*cell, *none)) for cell in cells]

    def _cell(self, w_ih: Any, w_hh: Any, b_ih: Tensor, b_hh: Tensor) -> Any:
        if isinstance(self.spec, CastSpec):
            return _CELL_FP16(w_ih, w_hh)
        return _CELL(w_ih, w_hh, b_ih, b_hh, self.reduce_range)
