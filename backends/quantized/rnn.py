"""The kernel family ``native-rnn``: LSTM, GRU and cells with int8 or half-precision weights.

``lstm(x, h, weights) -> quantized_lstm(x, h, packed(weights))``. The kernel quantizes activations
at each step, so the q/dq graph has the layer unchanged.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from quantfx.backends.checks.targets import host
from quantfx.backends.quantized.engines import Engines
from quantfx.backends.quantized.family import NativeFamily, write_packed
from quantfx.backends.quantized.quantized_tensors import pack_with, quantize_signed
from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.packed import Packed
from quantfx.passes.observers.make_observer import make_observer
from quantfx.passes.observers.observer import Observer
from quantfx.passes.pipeline.kernel_family import Candidate, Emission
from quantfx.passes.quant.spec import CastSpec, Concrete, QuantSpec
from quantfx.patterns.schema import argument_value, overload, resolve_op

_LSTM, _GRU = "aten.quantized_lstm", "aten.quantized_gru"
_LSTM_CELL = "quantized.quantized_lstm_cell_dynamic"
_RNN_CELL = "quantized.quantized_*_cell_dynamic"
_LSTM_OP, _GRU_OP = resolve_op(f"{_LSTM}.input"), resolve_op(f"{_GRU}.input")
_FLAGS = ("has_biases", "num_layers", "dropout", "train", "bidirectional", "batch_first")
_CELLS = {
    resolve_op(f"aten.{name}.default"): resolve_op(f"quantized.quantized_{kernel}_dynamic.default")
    for name, kernel in (
        ("lstm_cell", "lstm_cell"),
        ("gru_cell", "gru_cell"),
        ("rnn_tanh_cell", "rnn_tanh_cell"),
        ("rnn_relu_cell", "rnn_relu_cell"),
    )
}


_PREPACK = resolve_op("quantized.linear_prepack.default")
_PREPACK_FP16 = resolve_op("quantized.linear_prepack_fp16.default")
_CELL = resolve_op("quantized.make_quantized_cell_params_dynamic.default")
_CELL_FP16 = resolve_op("quantized.make_quantized_cell_params_fp16.default")


@dataclass(frozen=True)
class NativeRnn(NativeFamily):
    """torch's dynamic recurrent kernels.

    Attributes:
        engines: The engines that pack them.
        reduce_range: Whether layers quantize activations to 0..127. Layers for CPUs without VNNI
            always do, and so do cells on every engine but qnnpack, which never does (torch 2.13).
    """

    engines: Engines = Engines()  # noqa: RUF009  a frozen value
    reduce_range: bool = False

    name = "native-rnn"
    kernels = frozenset({_LSTM, _GRU, _LSTM_CELL, _RNN_CELL})

    def refuses(self, candidate: Candidate, editor: Editor) -> str | None:
        """Return what the kernels do not support: projections, training, computed weights."""
        node, spec = candidate.anchor, candidate.packs["w"]
        large = _find_beyond_half(node, editor) if isinstance(spec, CastSpec) else None
        if large is not None:
            return f"{large.name} has values beyond the range of half precision"
        if isinstance(spec, QuantSpec) and (spec.quant_min, spec.quant_max) != (-128, 127):
            return f"its weights are to be '{spec}', and the kernel stores them in -128..127"
        if candidate.kernel not in (_LSTM, _GRU):
            return None
        if argument_value(node, "train"):
            return f"{node.name} is in training mode"
        expected = argument_value(node, "num_layers") * (1 + argument_value(node, "bidirectional"))
        expected *= 4 if argument_value(node, "has_biases") else 2
        given = len(argument_value(node, "params"))
        if given != expected:
            return f"{node.name} projects its state (proj_size), and the kernel cannot"
        return None

    def emit(self, candidate: Candidate, editor: Editor) -> Emission:
        """Write the packing, which runs once, and the kernel call."""
        node = candidate.anchor
        spec = candidate.packs["w"]
        is_half = isinstance(spec, CastSpec)
        engine = self.engines.other("rnn_fp16" if is_half else "rnn")
        x, hx = argument_value(node, "input"), argument_value(node, "hx")
        kwargs: dict[str, Any] = {}
        if candidate.kernel in (_LSTM, _GRU):
            flags = [argument_value(node, name) for name in _FLAGS]
            has_biases = argument_value(node, "has_biases")
            reduced = self.reduce_range or host().saturates
            layers = PackedRnn(engine, spec, has_biases, reduced)
            packed = write_packed(editor, layers, *argument_value(node, "params"), before=node)
            args = (x, hx, packed, True, *flags[1:])
            target = _LSTM_OP if candidate.kernel == _LSTM else _GRU_OP
            if target is _LSTM_OP:
                dtype = torch.float16 if is_half else torch.qint8
                kwargs = {"dtype": dtype, "use_dynamic": True}
        else:
            weights = [argument_value(node, name) for name in ("w_ih", "w_hh", "b_ih", "b_hh")]
            packed = write_packed(editor, PackedCell(engine, spec), *weights, before=node)
            parts = [_part(editor, packed, index, node) for index in range(len(weights))]
            args = (x, hx, *parts)
            target = _CELLS[overload(node)]
        call = editor.call(target, args, kwargs=kwargs, before=node, val=node.meta.get("val"))
        return Emission(call, node, str(target).removesuffix(".default").removesuffix(".input"))


def _find_beyond_half(node: Node, editor: Editor) -> Node | None:
    """Return a weight that half precision cannot hold."""
    largest = torch.finfo(torch.float16).max
    for each in node.all_input_nodes:
        value = editor.stored(each)
        if value is not None and bool((value.detach().abs() > largest).any()):
            return each
    return None


def _part(editor: Editor, packed: Node, index: int, node: Node) -> Node:
    return editor.call(
        operator.getitem, (packed, index), like=packed, before=node, val=packed.meta.get("val")
    )


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
