"""Make the fake-quantize module for a spec."""

from __future__ import annotations

from torch import Tensor, nn

from quantfx.passes.errors import SpecError
from quantfx.passes.observers.cast_fake_quantize import CastFakeQuantize
from quantfx.passes.observers.dynamic_fake_quantize import DynamicFakeQuantize
from quantfx.passes.observers.fake_quantize import MovingFakeQuantize, WeightFakeQuantize
from quantfx.passes.observers.learned_fake_quantize import LearnedFakeQuantize
from quantfx.passes.quant.spec import CastSpec, Concrete, QuantSpec


def make_fake_quantize(
    spec: Concrete, label: str, *, weight: Tensor | None, learn_scale: bool
) -> nn.Module:
    """Return a fresh fake-quantize module.

    Args:
        spec: What the tensor is quantized to. Its ``observer`` finds the start of a learned scale;
            otherwise activations follow a moving average, and weights their own range.
        label: Name of the tensor, used in errors.
        weight: The weight, or a tensor of its shape; None for an activation.
        learn_scale: Whether to make the scale a parameter.

    Raises:
        SpecError: the spec makes its own observer, whose gradient is unknown.
    """
    if isinstance(spec, CastSpec):
        return CastFakeQuantize(spec, label)
    if not isinstance(spec.observer, str):
        message = f"{label}: '{spec}' makes its own observer, which cannot fake-quantize"
        fix = "name an observer of quantfx, or quantize after training"
        raise SpecError(message, rule="not-trainable", site=label, fix=fix)
    if spec.dynamic:
        return DynamicFakeQuantize(spec, label)
    if learn_scale:
        return LearnedFakeQuantize(spec, _shape_of_scales(spec, weight), label)
    return MovingFakeQuantize(spec, label) if weight is None else WeightFakeQuantize(spec, label)


def _shape_of_scales(spec: QuantSpec, weight: Tensor | None) -> tuple[int, ...]:
    if spec.axis is None:
        return ()
    if weight is None:
        return (1,)
    channels = weight.shape[spec.axis]
    return (channels,) if spec.group is None else (channels, weight.shape[-1] // spec.group)
