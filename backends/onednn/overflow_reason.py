"""The largest scale of an input, for kernels that multiply sums of integers by it first."""

from __future__ import annotations

import torch

from quantfx.passes.pipeline.kernel_family import Candidate

_LARGEST_PRODUCT = 255 * 128  # of uint8 and int8


def overflow_reason(candidate: Candidate) -> str | None:
    """Return that sums times the input's scale may pass what float32 holds, as a sentence.

    With VNNI oneDNN multiplies by this scale before the weight's (torch 2.13, measured), so that
    results are infinite which are numbers in the q/dq graph. A dynamic scale is not known here.
    """
    scale = candidate.dequantize("input").args[1]
    if not isinstance(scale, float):
        return None
    weight = candidate.quantized("weight").meta["val"]
    # Weights of transposed convolutions have their inputs first: the larger number is above both.
    products = weight.numel() // min(weight.shape[:2])
    if scale * _LARGEST_PRODUCT * products <= torch.finfo(torch.float32).max:
        return None
    return f"its sums times the input's scale, {scale:.2g}, may pass what torch.float32 holds"
