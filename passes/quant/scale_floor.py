"""How small the scale of a quantized tensor may be."""

from __future__ import annotations

import torch

SCALE_FLOOR = torch.finfo(torch.float32).tiny
"""2^-126, the smallest normal float32; below it no scale is exact.

1. Quantizing is ``round(x * (1 / scale))`` in float32 (``quantize_per_tensor`` in
   torch/ao/quantization/fx/_decomposed.py, and what Inductor makes of it). The reciprocal is finite
   down to 2^-127, and below 2^-126 a scale has fewer than 24 bits, or none where the CPU flushes
   denormal numbers to zero.
2. Integer kernels turn a sum of products into ``sum * (scale_x * scale_w)``, in float32, times
   ``1 / scale_y`` where they quantize the result (oneDNN, developer guide, "Quantization";
   ``RequantizeOutput`` in fbgemm). So the product has to be normal as well: see
   ``passes/convert/normal_products.py``, which raises the scales of a weight where it is not.

Measured in torch 2.13 (AVX2), with one scale, or the product of two, going down by powers of two:
the q/dq operators, eager and compiled, and fake quantizes are first wrong at 2^-128; oneDNN's
convolutions and linears with a product of 2^-142, torch's own quantized kernels and the int8
weight-only kernel under bfloat16 at 2^-130 (of four powers each). ``quantized.linear_dynamic``
finds its own range and holds that scale above 6.1e-5, whatever is asked for
(``SMALL_SCALE_THRESHOLD`` in ATen/native/quantized/cpu/QuantUtils.h).
"""

TORCHAO_FLOOR = 2**-12
"""The floor of X86InductorQuantizer, whatever its dtype: values below 1e-4 become zero."""

TORCH_AO_FLOOR = torch.finfo(torch.float32).eps
"""The floor of torch.ao's observers and of ranges found in each call, 2^-23."""

UNKNOWN_RANGE = 8.0
"""How far a tensor may reach, on both sides, of which calibration saw nothing but zeros.

Values that a model has normalized lie within: a wrong guess, but one that destroys nothing.
"""


def has_floor(eps: float) -> bool:
    """Whether ``eps`` exceeds what kernels need: then a floor was requested, as in torchao.

    Ranges of only zero then get that floor, as in torchao, instead of a guess.
    """
    return eps > SCALE_FLOOR
