"""Quantize PyTorch models with readable graph passes, patterns as data, and a checked contract."""

from __future__ import annotations

from quantfx.patterns.torch_version import require_torch

require_torch()  # before importing anything that an older torch lacks

import importlib
from typing import TYPE_CHECKING, Any

from quantfx import backends, checks, errors, passes, patterns
from quantfx.api import diff, draw, html, quantize
from quantfx.collect_statistics import collect
from quantfx.equalize_model import equalize
from quantfx.passes.capture.capture import capture
from quantfx.passes.config.config import Config
from quantfx.passes.draw.diff.graph_diff import GraphDiff
from quantfx.passes.observe.calibrate import calibrate
from quantfx.passes.observe.statistics.fill_observers import fill_observers
from quantfx.passes.observers.statistics.statistics import Statistics
from quantfx.passes.pipeline.pipeline import Pipeline
from quantfx.passes.report.compare.comparison import Comparison
from quantfx.passes.report.explain.explanation import Explanation, Explanations
from quantfx.passes.report.report import Report
from quantfx.passes.train.qat_module import QatModule
from quantfx.passes.train.qat_schedule import QatSchedule
from quantfx.patterns.errors import QuantfxError, QuantfxWarning
from quantfx.qat import convert_qat, prepare_qat
from quantfx.result import Result
from quantfx.split_model import split_outliers

if TYPE_CHECKING:
    from quantfx.auto_quantized import AutoQuantized, auto
    from quantfx.bisect_model import bisect
    from quantfx.decoder import Decoder, load_decoder, quantize_decoder
    from quantfx.dynamo.compile_state import CompileState
    from quantfx.dynamo.options import Batches
    from quantfx.load_result import load
    from quantfx.measure_sensitivity import sensitivity
    from quantfx.passes.report.sensitivity.sensitivity import Sensitivity
    from quantfx.reduce_model import reduce
    from quantfx.search_recipe import quantize_to
    from quantfx.tuned_result import Tuned

__version__ = "0.1.0"

# Imported on first use: they need Dynamo or sympy, which take seconds to import.
_LATE = {
    "AutoQuantized": "quantfx.auto_quantized",
    "Batches": "quantfx.dynamo.options",
    "CompileState": "quantfx.dynamo.compile_state",
    "Decoder": "quantfx.decoder",
    "Sensitivity": "quantfx.passes.report.sensitivity.sensitivity",
    "Tuned": "quantfx.tuned_result",
    "auto": "quantfx.auto_quantized",
    "bisect": "quantfx.bisect_model",
    "load": "quantfx.load_result",
    "load_decoder": "quantfx.decoder",
    "quantize_decoder": "quantfx.decoder",
    "quantize_to": "quantfx.search_recipe",
    "reduce": "quantfx.reduce_model",
    "sensitivity": "quantfx.measure_sensitivity",
}

__all__ = [
    "AutoQuantized",
    "Batches",
    "Comparison",
    "CompileState",
    "Config",
    "Decoder",
    "Explanation",
    "Explanations",
    "GraphDiff",
    "Pipeline",
    "QatModule",
    "QatSchedule",
    "QuantfxError",
    "QuantfxWarning",
    "Report",
    "Result",
    "Sensitivity",
    "Statistics",
    "Tuned",
    "auto",
    "backends",
    "bisect",
    "calibrate",
    "capture",
    "checks",
    "collect",
    "convert_qat",
    "diff",
    "draw",
    "equalize",
    "errors",
    "fill_observers",
    "html",
    "load",
    "load_decoder",
    "passes",
    "patterns",
    "prepare_qat",
    "quantize",
    "quantize_decoder",
    "quantize_to",
    "reduce",
    "sensitivity",
    "split_outliers",
]


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module 'quantfx' has no attribute '{name}'")
    value = getattr(importlib.import_module(_LATE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
