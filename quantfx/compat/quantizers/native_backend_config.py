"""torch's native BackendConfig, made from quantfx's rows, in torch.ao's classes.

``torch.ao.quantization.prepare_fx`` takes these configs. Each row of a config comes from a row in
``quantfx.backends.quantized.rows``.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.ao.nn import intrinsic, qat
from torch.ao.nn.intrinsic import qat as intrinsic_qat
from torch.ao.nn.quantized import reference
from torch.ao.quantization import fuser_method_mappings
from torch.ao.quantization.backend_config.backend_config import (
    BackendConfig,
    BackendPatternConfig,
    DTypeConfig,
    DTypeWithConstraints,
    ObservationType,
)

from quantfx.backends.quantized.rows import NativeRow, dtype_configs, native_variant

_PREFIXES = {
    "nn": nn,
    "F": nn.functional,
    "nni": intrinsic,
    "nnqat": qat,
    "nniqat": intrinsic_qat,
    "nnqr": reference,
    "torch": torch,
    "operator": operator,
}
_OBSERVATIONS = {
    "different": ObservationType.OUTPUT_USE_DIFFERENT_OBSERVER_AS_INPUT,
    "share": ObservationType.OUTPUT_SHARE_OBSERVER_WITH_INPUT,
    "none": ObservationType.INPUT_OUTPUT_NOT_OBSERVED,
}


def get_native_backend_config() -> BackendConfig:
    """Return the config of fbgemm and qnnpack."""
    return _config("native", "native")


def get_native_backend_config_dict() -> dict[str, Any]:
    """Return the same as a dictionary."""
    return get_native_backend_config().to_dict()


def get_test_only_legacy_native_backend_config() -> BackendConfig:
    """Return the config including static half precision."""
    return _config("_native_and_fp16", "legacy")


def get_test_only_legacy_native_backend_config_dict() -> dict[str, Any]:
    """Return the same as a dictionary."""
    return get_test_only_legacy_native_backend_config().to_dict()


def _dtype_config(name: str) -> DTypeConfig:
    given = dict(dtype_configs()[name])
    return DTypeConfig(
        input_dtype=_dtype(given["input"]),
        output_dtype=_dtype(given["output"]),
        weight_dtype=_dtype(given["weight"]) if "weight" in given else None,
        bias_dtype=getattr(torch, given["bias"]) if "bias" in given else None,
        is_dynamic=given.get("is_dynamic"),
    )


def _dtype(value: Any) -> torch.dtype | DTypeWithConstraints:
    if isinstance(value, str):
        dtype: torch.dtype = getattr(torch, value)
        return dtype
    name, low, high, scale, zero_point = value
    return DTypeWithConstraints(
        dtype=getattr(torch, name),
        quant_min_lower_bound=low,
        quant_max_upper_bound=high,
        scale_exact_match=scale,
        zero_point_exact_match=zero_point,
    )


weighted_op_quint8_dtype_config = _dtype_config("weighted_op_quint8")
default_op_quint8_dtype_config = _dtype_config("default_op_quint8")
default_op_fp16_dtype_config = _dtype_config("default_op_fp16")
default_dynamic_int8_dtype_config = _dtype_config("default_dynamic_int8")
default_dynamic_float16_dtype_config = _dtype_config("default_dynamic_float16")
input_output_only_quint8_dtype_config = _dtype_config("input_output_only_quint8")
weight_only_quint8_dtype_config = _dtype_config("weight_only_quint8")
weight_only_quint4x2_dtype_config = _dtype_config("weight_only_quint4x2")


def _config(name: str, of: str) -> BackendConfig:
    config = BackendConfig(name)
    for row in native_variant(of).rows:
        made = BackendPatternConfig(_pattern(row.pattern))
        made.set_observation_type(_OBSERVATIONS[row.observation])
        made.set_dtype_configs([_dtype_config(name) for name in row.dtypes])
        made.root_module = _object(row.root)
        made.reference_quantized_module = _object(row.reference)
        made.qat_module = _object(row.qat)
        made.fused_module = _object(row.fused)
        made.fuser_method = _fuser(row)
        # These two have no setter without an underscore in torch 2.13.
        made._num_tensor_args_to_observation_type = {  # pyright: ignore[reportPrivateUsage]
            count: _OBSERVATIONS[each] for count, each in enumerate(row.by_tensors)
        }
        made._input_type_to_index = dict(row.index)  # pyright: ignore[reportPrivateUsage]
        config.set_backend_pattern_config(made)
    return config


def _pattern(text: str) -> Any:
    if text.startswith("("):
        return tuple(_pattern(part) for part in re.split(r",\s*", text.strip("()")))
    return text.strip("'") if text.startswith("'") else _object(text)


def _object(name: str) -> Any:
    if not name:
        return None
    prefix, *path = name.split(".")
    found: Any = _PREFIXES[prefix]
    for each in path:
        found = getattr(found, each)
    return found


def _fuser(row: NativeRow) -> Callable[..., nn.Module] | None:
    if not row.fuser:
        return None
    if row.fuser != "sequential":
        method: Callable[..., nn.Module] = getattr(fuser_method_mappings, row.fuser)
        return method
    fused = _object(row.fused)

    def fuse(is_qat: bool, first: nn.Module, second: nn.Module) -> nn.Module:
        """Return both as the fused module, in training and in evaluation."""
        made: nn.Module = fused(first, second)
        return made

    return fuse
