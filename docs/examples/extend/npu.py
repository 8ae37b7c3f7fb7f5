"""A backend outside quantfx, for a device that does not exist: this file and npu.toml are enough.

It prints::

    conv2d  aten.conv2d.default
    ├── int8 by template npu_conv_hardsigmoid: planned; the backend has no kernels to lower it to
    ├── ...
"""

import torch

from quantfx.backends import CONVERT, PREPARE, Backend
from quantfx.passes import Annotate, QuantSpec, Recipe
from quantfx.patterns import load

ACT = QuantSpec(torch.uint8, 0, 255, symmetric=True, observer="min_max")
WEIGHT = QuantSpec(torch.int8, -128, 127, symmetric=True, observer="min_max")
PATTERNS = load(__file__.replace(".py", ".toml"))
RECIPE = Recipe("npu", PATTERNS, (("act", ACT), ("weight", WEIGHT)))
PIPELINE = PREPARE.replace("annotate-conv", Annotate("npu")).without("annotate-linear")
NPU = Backend("npu", RECIPE, prepare_pipeline=PIPELINE, convert_pipeline=CONVERT, policy="made up")

if __name__ == "__main__":
    import quantfx

    torch.manual_seed(0)
    x = torch.randn(2, 3, 6, 6)
    layers = (torch.nn.Conv2d(3, 4, 3), torch.nn.Hardsigmoid(), torch.nn.ReLU())
    result = quantfx.quantize(torch.nn.Sequential(*layers).eval(), x, calibration=[x], backend=NPU)
    print(result.explain("0"))
