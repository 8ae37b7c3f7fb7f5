"""The int8 and fp16 operators of torch's namespace ``onednn``, with missing fakes added.

torch 2.13 loads the operators on import. Its ``*_prepack`` have no fake kernel, so graphs with them
cannot be traced; ``register_fakes`` adds the missing ones.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from quantfx.patterns.schema import resolve_op, schema_text

QCONV_PREPACK = resolve_op("onednn.qconv_prepack.default")
QCONV = resolve_op("onednn.qconv_pointwise.default")
QCONV_SUM = resolve_op("onednn.qconv2d_pointwise.binary")
QLINEAR_PREPACK = resolve_op("onednn.qlinear_prepack.default")
QLINEAR = resolve_op("onednn.qlinear_pointwise.default")
QLINEAR_DYNAMIC = resolve_op("onednn.qlinear_pointwise.tensor")
QLINEAR_ADD = resolve_op("onednn.qlinear_pointwise.binary")
QLINEAR_ADD_DYNAMIC = resolve_op("onednn.qlinear_pointwise.binary_tensor")
LINEAR_FP16_PREPACK = resolve_op("onednn.linear_prepack_fp16.default")
LINEAR_FP16 = resolve_op("onednn.linear_dynamic_fp16.default")
LINEAR_RELU_FP16 = resolve_op("onednn.linear_relu_dynamic_fp16.default")


def _packed_convolution(weight: Tensor, *_: object) -> Tensor:
    return _packed(weight, list(weight.shape))


def _packed_linear(weight: Tensor, *_: object) -> Tensor:
    return _packed(weight, [weight.shape[1], weight.shape[0]])


def _packed(weight: Tensor, shape: list[int]) -> Tensor:
    """Return a tensor with the strides that a packed weight reports, which Inductor compares."""
    strides = [1, *[0] * (len(shape) - 1)]
    return torch.empty_strided(shape, strides, dtype=weight.dtype, device=weight.device)


_FAKES = {
    QCONV_PREPACK: _packed_convolution,
    QLINEAR_PREPACK: _packed_linear,
    LINEAR_FP16_PREPACK: _packed_linear,
}


def register_fakes() -> None:
    """Register a fake kernel for each prepack operator that has none; the shape is torch's own."""
    for op, fake in _FAKES.items():
        if not _has_fake(op):
            torch.library.register_fake(schema_text(op).partition("(")[0], fake)


def _has_fake(op: OpOverload[..., Any]) -> bool:
    weight = torch.empty(2, 2, 1, 1, device="meta") if op is QCONV_PREPACK else None
    matrix = torch.empty(2, 2, device="meta")
    try:
        if weight is not None:
            op(weight, torch.empty(2, device="meta"), 1.0, 0, [1, 1], [0, 0], [1, 1], 1, None)
        else:
            op(matrix, None)
    except (NotImplementedError, RuntimeError):
        return False
    return True


# Names in reports of the kernels that a compiled graph calls.
KERNEL_NAMES = {
    QCONV: "qconv_pointwise",
    QCONV_SUM: "qconv2d_pointwise.binary",
    QLINEAR: "qlinear_pointwise",
    QLINEAR_DYNAMIC: "qlinear_pointwise.tensor",
    QLINEAR_ADD: "qlinear_pointwise.binary",
    QLINEAR_ADD_DYNAMIC: "qlinear_pointwise.binary_tensor",
    LINEAR_FP16: "linear_dynamic_fp16",
    LINEAR_RELU_FP16: "linear_relu_dynamic_fp16",
    resolve_op("aten._weight_int8pack_mm.default"): "_weight_int8pack_mm",
}
