"""The quantizer of Intel and AMD CPUs, and its default configs."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch.ao.quantization.fake_quantize import FakeQuantize, FusedMovingAvgObsFakeQuantize
from torch.ao.quantization.observer import (
    HistogramObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    PerChannelMinMaxObserver,
    PlaceholderObserver,
)

from quantfx.backends.x86 import PREPARE
from quantfx.compat.quantizers.inductor import InductorQuantizer
from quantfx.compat.terms.specs import QuantizationConfig, QuantizationSpec
from quantfx.passes.annotate.annotate import Annotate
from quantfx.passes.annotate.propagate import Propagate
from quantfx.passes.pipeline.pipeline import Pipeline
from quantfx.patterns.loader import load

_EPS = 2**-12


class X86InductorQuantizer(InductorQuantizer):
    """Annotates matches of the templates of set ``pt2e`` for oneDNN on CPUs."""

    patterns = load("pt2e")
    training_patterns = load("qat").only("conv2d_bn_add", "conv2d_bn")
    passes = Pipeline(tuple(each for each in PREPARE if isinstance(each, (Annotate, Propagate))))


@functools.cache
def get_default_x86_inductor_quantization_config(
    is_qat: bool = False, is_dynamic: bool = False, reduce_range: bool = False
) -> QuantizationConfig:
    """Return u8 affine activations with s8 symmetric weights, one scale per output channel.

    Args:
        is_qat: Fake-quantize modules instead of observers.
        is_dynamic: Find the range of activations in each call.
        reduce_range: Activations in [0, 127], for CPUs without VNNI.
    """
    activation = QuantizationSpec(
        dtype=torch.uint8,
        quant_min=0,
        quant_max=127 if reduce_range else 255,
        qscheme=torch.per_tensor_affine,
        is_dynamic=is_dynamic,
        observer_or_fake_quant_ctr=_activation_observer(is_qat, is_dynamic),
    )
    return QuantizationConfig(activation, activation, weight_spec(is_qat), None, is_qat)


def weight_spec(is_qat: bool = False) -> QuantizationSpec:
    """Return an s8 symmetric spec, one scale per output channel."""
    fake_quantize: Any = FusedMovingAvgObsFakeQuantize
    made = (
        fake_quantize.with_args(observer=MovingAveragePerChannelMinMaxObserver, eps=_EPS)
        if is_qat
        else PerChannelMinMaxObserver.with_args(eps=_EPS)
    )
    return QuantizationSpec(
        dtype=torch.int8,
        quant_min=-128,
        quant_max=127,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
        observer_or_fake_quant_ctr=made,
    )


@functools.cache
def get_x86_inductor_linear_dynamic_fp16_config() -> QuantizationConfig:
    """Return float16 weights, with activations and arithmetic in float32."""
    weight = QuantizationSpec(dtype=torch.float16, observer_or_fake_quant_ctr=PlaceholderObserver)
    return QuantizationConfig(None, None, weight, None)


def _activation_observer(is_qat: bool, is_dynamic: bool) -> Any:
    if not is_qat:
        kind: Any = PlaceholderObserver if is_dynamic else HistogramObserver
        return kind.with_args(eps=_EPS)
    fake_quantize: Any = FakeQuantize if is_dynamic else FusedMovingAvgObsFakeQuantize
    if not is_dynamic:
        return fake_quantize.with_args(eps=_EPS)
    # The range of the last batch alone, like a range found in each call.
    last = MovingAverageMinMaxObserver.with_args(averaging_constant=1)
    return fake_quantize.with_args(observer=last, eps=_EPS)
