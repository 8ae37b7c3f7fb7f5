"""Quantize PyTorch models with readable graph passes, patterns as data, and a checked contract."""

from __future__ import annotations

from quantfx.patterns.torch_version import require_torch

require_torch()  # before anything is imported that an older one lacks

from quantfx import backends, passes, patterns
from quantfx.api import draw, quantize
from quantfx.auto_quantized import AutoQuantized, auto
from quantfx.dynamo.compile_state import CompileState
from quantfx.dynamo.options import Batches
from quantfx.load_result import load
from quantfx.passes.calibrate import calibrate
from quantfx.passes.capture import capture
from quantfx.passes.config import Config
from quantfx.passes.pipeline import Pipeline
from quantfx.passes.qat_module import QatModule
from quantfx.passes.qat_schedule import QatSchedule
from quantfx.passes.report import Report
from quantfx.patterns.errors import QuantfxError, QuantfxWarning
from quantfx.qat import convert_qat, prepare_qat
from quantfx.result import Result

__version__ = "0.1.0"

__all__ = [
    "AutoQuantized",
    "Batches",
    "CompileState",
    "Config",
    "Pipeline",
    "QatModule",
    "QatSchedule",
    "QuantfxError",
    "QuantfxWarning",
    "Report",
    "Result",
    "auto",
    "backends",
    "calibrate",
    "capture",
    "convert_qat",
    "draw",
    "load",
    "passes",
    "patterns",
    "prepare_qat",
    "quantize",
]
