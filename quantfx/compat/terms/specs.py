"""PT2E's specs of how to quantize a tensor.

Quantizers of other libraries use their own classes with the same attributes, so nothing in this
package checks for these classes: the attributes decide the kind (see ``kind_of`` in
``foreign_spec.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.fx import Node

from quantfx.passes.errors import QuantizationSpecError

ANNOTATION_KEY = "quantization_annotation"
EdgeOrNode: TypeAlias = "tuple[Node, Node] | Node"
"""A place in the graph: ``(producer, reader)`` for what the reader gets, a node for its result."""


class QuantizationSpecBase:
    """Base of all specs."""


@dataclass(frozen=True)
class QuantizationSpec(QuantizationSpecBase):
    """A tensor with its own observer or fake-quantize.

    Attributes:
        dtype: What it is quantized to.
        observer_or_fake_quant_ctr: Makes the observer or fake-quantize module; its ``with_args``
            gets the other attributes as keyword arguments.
        quant_min: Smallest quantized value; None leaves it to the observer.
        quant_max: Largest quantized value.
        qscheme: E.g. ``torch.per_tensor_affine``.
        ch_axis: Channel axis of a per-channel scheme.
        is_dynamic: Whether the range is found anew in each call.
    """

    dtype: torch.dtype
    observer_or_fake_quant_ctr: Any
    quant_min: int | None = None
    quant_max: int | None = None
    qscheme: torch.qscheme | None = None
    ch_axis: int | None = None
    is_dynamic: bool = False

    def __post_init__(self) -> None:
        low, high = self.quant_min, self.quant_max
        if low is not None and high is not None and low > high:
            message = f"quant_min {low} is larger than quant_max {high}"
            raise QuantizationSpecError(message, rule="number-range", site="quant_min")
        if self.ch_axis is not None and self.ch_axis < 0:
            message = f"ch_axis {self.ch_axis} is negative"
            fix = "count from the front"
            raise QuantizationSpecError(message, rule="number-range", site="ch_axis", fix=fix)


@dataclass(frozen=True)
class FixedQParamsQuantizationSpec(QuantizationSpecBase):
    """A tensor whose scale and zero point are known beforehand."""

    dtype: torch.dtype
    scale: float
    zero_point: int
    quant_min: int | None = None
    quant_max: int | None = None
    qscheme: torch.qscheme | None = None
    is_dynamic: bool = False


@dataclass(frozen=True)
class SharedQuantizationSpec(QuantizationSpecBase):
    """A tensor that has the observer of another place."""

    edge_or_node: EdgeOrNode


@dataclass(frozen=True)
class DerivedQuantizationSpec(QuantizationSpecBase):
    """A tensor whose qparams follow from the observers of other places.

    Attributes:
        derived_from: The places.
        derive_qparams_fn: Maps their observers, in that order, to scale and zero point.
        dtype: As in ``QuantizationSpec``, like the attributes that follow.
    """

    derived_from: list[EdgeOrNode]
    derive_qparams_fn: Callable[[list[Any]], tuple[Tensor, Tensor]]
    dtype: torch.dtype
    quant_min: int | None = None
    quant_max: int | None = None
    qscheme: torch.qscheme | None = None
    ch_axis: int | None = None
    is_dynamic: bool = False


@dataclass
class QuantizationAnnotation:
    """A quantizer's note on a node, under ``meta["quantization_annotation"]``.

    Attributes:
        input_qspec_map: Maps a producer to the spec of this node's input from it; None leaves it
            float.
        output_qspec: Spec of this node's result.
        allow_implicit_sharing: Whether this node's inputs share observers with other places that
            hold the same tensor under an equal spec.
        _annotated: Whether a quantizer has decided about this node, even if it quantizes nothing.
    """

    input_qspec_map: dict[Node, Any] = field(default_factory=dict[Node, Any])
    output_qspec: Any = None
    allow_implicit_sharing: bool = True
    _annotated: bool = False


@dataclass(frozen=True)
class QuantizationConfig:
    """The specs of one kind of operator; None leaves a tensor float."""

    input_activation: QuantizationSpec | None
    output_activation: QuantizationSpec | None
    weight: QuantizationSpec | None
    bias: QuantizationSpec | None
    is_qat: bool = False
