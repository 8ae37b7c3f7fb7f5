"""The C structures and functions of ``core/direct.h``, for ctypes."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, c_char_p, c_double, c_float, c_int32, c_int64, c_size_t, c_void_p

import torch

INTERFACE = 4
MAX_DIMS = 6
MAX_POST_OPS = 6

DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.uint8: 2, torch.int8: 3}
PLACES = {"arena": 0, "input": 1, "output": 2, "constant": 3}
COMBINES = {"first": 0, "add": 1, "sub": 2, "mul": 3, "div": 4}
_NAMES = (
    "relu clip linear sigmoid tanh gelu_erf gelu_tanh swish hardswish hardsigmoid leaky_relu elu "
    "exp abs sqrt square softplus mish pow sum"
)
POST_OPS = {name: index for index, name in enumerate(_NAMES.split())}


class CTensor(ctypes.Structure):
    """``qfx_tensor``."""

    _fields_ = (
        ("place", c_int32),
        ("index", c_int32),
        ("dtype", c_int32),
        ("ndims", c_int32),
        ("offset", c_int64),
        ("data", c_void_p),
        ("dims", c_int64 * MAX_DIMS),
        ("strides", c_int64 * MAX_DIMS),
        ("scale", c_double),
        ("zero_point", c_int32),
    )


class CPostOp(ctypes.Structure):
    """``qfx_post_op``."""

    _fields_ = (
        ("kind", c_int32),
        ("alpha", c_float),
        ("beta", c_float),
        ("scale", c_float),
        ("zero_point", c_int32),
    )


class CEpilogue(ctypes.Structure):
    """``qfx_epilogue``."""

    _fields_ = (
        ("count", c_int32),
        ("ops", CPostOp * MAX_POST_OPS),
        ("low", c_int32),
        ("high", c_int32),
    )


class CConvolution(ctypes.Structure):
    """``qfx_convolution``."""

    _fields_ = (
        ("source", CTensor),
        ("weight", CTensor),
        ("bias", CTensor),
        ("result", CTensor),
        ("has_bias", c_int32),
        ("spatial", c_int32),
        ("groups", c_int64),
        ("strides", c_int64 * 3),
        ("dilations", c_int64 * 3),
        ("padding_low", c_int64 * 3),
        ("padding_high", c_int64 * 3),
        ("weight_scales", c_void_p),
        ("weight_scale_count", c_int64),
        ("epilogue", CEpilogue),
        ("implementation", c_int32),
        ("threads", c_int32),
    )


class CMatMul(ctypes.Structure):
    """``qfx_matmul``."""

    _fields_ = (
        ("source", CTensor),
        ("weight", CTensor),
        ("bias", CTensor),
        ("result", CTensor),
        ("has_bias", c_int32),
        ("constant_weight", c_int32),
        ("weight_scales", c_void_p),
        ("weight_scale_count", c_int64),
        ("epilogue", CEpilogue),
        ("implementation", c_int32),
        ("threads", c_int32),
    )


class CPointwise(ctypes.Structure):
    """``qfx_pointwise``."""

    _fields_ = (
        ("kind", c_int32),
        ("a", CTensor),
        ("b", CTensor),
        ("result", CTensor),
        ("epilogue", CEpilogue),
    )


class CLookup(ctypes.Structure):
    """``qfx_lookup``."""

    _fields_ = (("source", CTensor), ("result", CTensor), ("table", c_char_p))


class CFill(ctypes.Structure):
    """``qfx_fill``."""

    _fields_ = (("result", CTensor), ("value", c_int32))


class CPool(ctypes.Structure):
    """``qfx_pool``."""

    _fields_ = (
        ("kind", c_int32),
        ("spatial", c_int32),
        ("counts_padding", c_int32),
        ("source", CTensor),
        ("result", CTensor),
        ("kernel", c_int64 * 3),
        ("strides", c_int64 * 3),
        ("dilations", c_int64 * 3),
        ("padding", c_int64 * 3),
        ("divisor", c_int64),
        ("epilogue", CEpilogue),
    )


class CInterpolate(ctypes.Structure):
    """``qfx_interpolate``."""

    _fields_ = (
        ("source", CTensor),
        ("result", CTensor),
        ("tables", CTensor * 3),
        ("spatial", c_int32),
        ("epilogue", CEpilogue),
    )


class CLayerNorm(ctypes.Structure):
    """``qfx_layer_norm``."""

    _fields_ = (
        ("source", CTensor),
        ("weight", CTensor),
        ("bias", CTensor),
        ("result", CTensor),
        ("has_weight", c_int32),
        ("has_bias", c_int32),
        ("centered", c_int32),
        ("epsilon", c_float),
        ("epilogue", CEpilogue),
    )


class CSoftmax(ctypes.Structure):
    """``qfx_softmax``."""

    _fields_ = (
        ("source", CTensor),
        ("result", CTensor),
        ("causal", c_int32),
        ("empty_is_zero", c_int32),
        ("epilogue", CEpilogue),
    )


class CAttention(ctypes.Structure):
    """``qfx_attention``."""

    _fields_ = (
        ("query", CTensor),
        ("key", CTensor),
        ("value", CTensor),
        ("result", CTensor),
        ("masks", CTensor * 2),
        ("mask_count", c_int32),
        ("empty_is_zero", c_int32),
        ("weight_scale", c_double),
        ("weight_zero_point", c_int32),
        ("weight_low", c_int32),
        ("weight_high", c_int32),
        ("scores", CEpilogue),
        ("epilogue", CEpilogue),
    )


_STRUCTURES: dict[str, type[ctypes.Structure]] = {
    "convolution": CConvolution,
    "matmul": CMatMul,
    "pointwise": CPointwise,
    "lookup": CLookup,
    "fill": CFill,
    "pool": CPool,
    "interpolate": CInterpolate,
    "layer_norm": CLayerNorm,
    "softmax": CSoftmax,
    "attention": CAttention,
}
_Pointers = POINTER(c_void_p)


def declare(library: ctypes.CDLL) -> None:
    """Tell ctypes the types of the library's functions."""
    signatures: dict[str, tuple[object, Sequence[object]]] = {
        "interface": (c_int32, []),
        "error": (c_char_p, []),
        "onednn_version": (None, [POINTER(c_int32)] * 3 + [POINTER(c_char_p)]),
        "store_new": (c_void_p, []),
        "store_free": (None, [c_void_p]),
        "plan_new": (c_void_p, [c_void_p, c_int32]),
        "plan_free": (None, [c_void_p]),
        "step_count": (c_int32, [c_void_p]),
        "step_name": (c_char_p, [c_void_p, c_int32]),
        "context_new": (c_void_p, [c_void_p, c_size_t]),
        "context_free": (None, [c_void_p]),
        "run": (c_int32, [c_void_p, _Pointers, _Pointers]),
        "time": (
            c_int32,
            [c_void_p, _Pointers, _Pointers, c_int32, c_int32, c_int32, POINTER(c_double)],
        ),
    }
    for name, structure in _STRUCTURES.items():
        signatures[f"add_{name}"] = (c_int32, [c_void_p, POINTER(structure)])
    for name, (result, arguments) in signatures.items():
        function = getattr(library, f"qfx_{name}")
        function.restype, function.argtypes = result, arguments
