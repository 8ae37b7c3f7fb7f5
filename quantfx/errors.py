"""Every exception and warning that quantfx raises.

All are of ``QuantfxError`` or ``QuantfxWarning``. A message names the node, file or argument, the
rule that it breaks, and the way out.
"""

from __future__ import annotations

from quantfx.passes.errors import (
    AnnotationError,
    ArgumentError,
    CalibrationError,
    CaptureError,
    ComposeError,
    ConfigError,
    ContractError,
    FileError,
    InputError,
    ModeError,
    ObserverError,
    OptionError,
    PassError,
    PipelineError,
    QuantizationSpecError,
    ShareConflict,
    SpecError,
    StaleWeightsError,
)
from quantfx.patterns.errors import PatternError, QuantfxError, QuantfxWarning

__all__ = [
    "AnnotationError",
    "ArgumentError",
    "CalibrationError",
    "CaptureError",
    "ComposeError",
    "ConfigError",
    "ContractError",
    "FileError",
    "InputError",
    "ModeError",
    "ObserverError",
    "OptionError",
    "PassError",
    "PatternError",
    "PipelineError",
    "QuantfxError",
    "QuantfxWarning",
    "QuantizationSpecError",
    "ShareConflict",
    "SpecError",
    "StaleWeightsError",
]
