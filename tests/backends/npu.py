"""A backend outside quantfx, for a device that does not exist: this file and npu.toml are all."""

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
