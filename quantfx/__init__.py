"""Quantize PyTorch models with readable graph passes, patterns as data, and a checked contract."""

from __future__ import annotations

from quantfx.patterns.torch_version import require_torch

require_torch()  # before anything is imported that an older one lacks

from quantfx import backends, errors, passes, patterns
from quantfx.api import draw, quantize
from quantfx.auto_quantized import AutoQuantized, auto
from quantfx.dynamo.compile_state import CompileState
from quantfx.dynamo.options import Batches
from quantfx.load_result import load
from quantfx.passes.capture.capture import capture
from quantfx.passes.config.config import Config
from quantfx.passes.observe.calibrate import calibrate
from quantfx.passes.pipeline.pipeline import Pipeline
from quantfx.passes.report.report import Report
from quantfx.passes.train.qat_module import QatModule
from quantfx.passes.train.qat_schedule import QatSchedule
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
    "errors",
    "load",
    "passes",
    "patterns",
    "prepare_qat",
    "quantize",
]
