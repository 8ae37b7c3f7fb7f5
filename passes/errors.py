"""Errors of the passes; each message names the node or batch, the rule and the fix."""

from __future__ import annotations

from quantfx.patterns.errors import QuantfxError


class CaptureError(QuantfxError):
    """The model cannot be turned into a graph; quotes the exporter's own reason."""


class InputError(QuantfxError):
    """A graph was called with inputs that it is not valid for; names the input and the fix."""


class CalibrationError(QuantfxError):
    """Calibration data is empty, non-finite, wrongly structured, or did not reach every site."""


class SpecError(QuantfxError):
    """A quantization spec contradicts itself or the tensor it is put on."""


class ConfigError(QuantfxError):
    """A config is ill-formed, selects nothing, or asks for what the backend cannot do."""


class PipelineError(QuantfxError):
    """A pipeline is ill-formed: an unknown pass or option, or a fact required but not provided."""


class PassError(QuantfxError):
    """A pass failed or left an invalid graph; the message ends with a reproducer."""


class BisectError(QuantfxError):
    """A bisection or a reduction cannot begin; says which assumption does not hold."""


class ShareConflict(QuantfxError):
    """Sites that must share qparams demand different ones; the message is the chain of reasons."""


class ContractError(QuantfxError):
    """Planned, annotated, converted and lowered sites differ."""


class StaleWeightsError(QuantfxError):
    """A model's weights were written to after int8 weights had been made from them."""


class ModeError(QuantfxError):
    """An int8 graph was asked for gradients, which it does not have."""


class OptionError(QuantfxError):
    """An option of ``torch.compile`` is unknown to the backend, or has a wrong value."""


class FileError(QuantfxError):
    """A quantfx file cannot be written or read; names the file, the fault and the fix."""

    @classmethod
    def damaged(cls, path: object, reason: object) -> FileError:
        """Return the error for a file whose content is not what quantfx wrote."""
        message = f"{path}: the file is truncated or damaged ({reason})"
        fix = "copy it again, or save it again"
        return cls(message, rule="damaged-file", site=str(path), fix=fix)


# Errors of the PT2E names; each also derives from the built-in error that PT2E users expect.


class QuantizationSpecError(SpecError, ValueError):
    """A quantization spec contradicts itself."""


class AnnotationError(QuantfxError, AssertionError):
    """A quantizer annotated a node with something that cannot be observed."""


class ComposeError(QuantfxError, RuntimeError):
    """A quantizer changed what an earlier one of the same composition had decided."""


class ArgumentError(QuantfxError, ValueError):
    """An argument is of the wrong kind, or asks for what this library does not do."""


class ObserverError(QuantfxError, TypeError):
    """A module that stands where an observer should does not say how to quantize."""
