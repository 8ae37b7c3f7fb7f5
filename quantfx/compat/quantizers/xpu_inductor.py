"""The quantizer of Intel GPUs, and its default config."""

from __future__ import annotations

import functools

import torch
from torch.ao.quantization.observer import HistogramObserver

from quantfx.backends.xpu import OMITTED
from quantfx.compat.quantizers.inductor import InductorQuantizer
from quantfx.compat.quantizers.x86_inductor import X86InductorQuantizer, weight_spec
from quantfx.compat.terms.specs import QuantizationConfig, QuantizationSpec
from quantfx.passes.pipeline.pipeline import Pipeline


class XPUInductorQuantizer(InductorQuantizer):
    """Annotates like ``X86InductorQuantizer``, except max pooling, which has no kernel here."""

    patterns = X86InductorQuantizer.patterns.without("max_pool2d")
    passes = Pipeline(
        tuple(each for each in X86InductorQuantizer.passes if each.name not in OMITTED)
    )


@functools.cache
def get_default_xpu_inductor_quantization_config() -> QuantizationConfig:
    """Return s8 affine activations with s8 symmetric weights, one scale per output channel."""
    activation = QuantizationSpec(
        dtype=torch.int8,
        quant_min=-128,
        quant_max=127,
        qscheme=torch.per_tensor_affine,
        observer_or_fake_quant_ctr=HistogramObserver.with_args(eps=2**-12),
    )
    return QuantizationConfig(activation, activation, weight_spec(), None)
