"""Measure what eight bits cost the outputs of layers, on held-out inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from quantfx.passes.observe.equalize.recorder import PairRecorder
from quantfx.passes.observe.equalize.second_weight import SecondWeight
from quantfx.passes.observers.fake_quantize import fake_quantized
from quantfx.passes.quant.qparams import qparams_from_range, range_of
from quantfx.passes.quant.spec import QuantSpec

_WEIGHT = QuantSpec(torch.int8, -128, 127, symmetric=True, axis=0, observer="min_max")


def noise(
    recorder: PairRecorder, seconds: Sequence[SecondWeight], scale: Tensor, *, parts: bool = False
) -> float:
    """Return the squared error of the outputs over their squares, summed over the layers.

    The input is rounded to 8 bits in the range of least squared error, as x86 does by default. The
    weight is rounded to 8 bits per output channel, by the channel's extremes.

    Args:
        recorder: Recorder of the tensor that the layers read.
        seconds: Their weights, in the order of the recorder.
        scale: float64, ``(in,)``: the input is divided by it, the weights are multiplied.
        parts: Whether weights are multiplied after rounding: each channel is so many equal parts,
            which are rounded alike, and so are their copies of the weight.
    """
    total = 0.0
    qparams = recorder.observer.divide_by(scale.float()).calculate_qparams()
    for second, held in zip(seconds, recorder.held, strict=True):
        kernel = second.value[0, 0].numel()
        divisor = scale.reshape(second.groups, 1, -1).repeat_interleave(kernel, 2).float()
        rounded = fake_quantized(held.rows / divisor, qparams)
        weight = (
            replace(second, value=_rounded(second.value)).times(scale)
            if parts
            else _rounded(second.times(scale))
        )
        exact = _outputs(held.rows, second.value, second.groups)
        error = _outputs(rounded, weight, second.groups) - exact
        power = float(exact.square().sum())
        total += float(error.square().sum()) / power if power else 0.0
    return total


def _rounded(weight: Tensor) -> Tensor:
    weight = weight.float()
    return fake_quantized(weight, qparams_from_range(*range_of(weight, _WEIGHT), _WEIGHT))


def _outputs(patches: Tensor, weight: Tensor, groups: int) -> Tensor:
    """Return outputs ``(groups, S, out / groups)`` of the weight on patches ``(groups, S, K)``."""
    by_group = weight.double().reshape(groups, -1, patches.shape[2])
    return patches.double() @ by_group.transpose(1, 2)
