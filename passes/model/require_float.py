"""Refuse models that torch.ao has prepared or converted, and say what to give instead."""

from __future__ import annotations

from torch import nn

from quantfx.passes.errors import CaptureError

_INT8 = ("torch.ao.nn.quantized.", "torch.ao.nn.intrinsic.quantized.")
_FLOAT_THERE = ("FloatFunctional", "FXFloatFunctional")  # these compute in float


def require_float(model: nn.Module) -> None:
    """Raise unless a model computes in float and torch.export can follow it.

    Models prepared for training with ``FusedMovingAvgObsFakeQuantize``, the fake quantize of all
    torch.ao default qconfigs, are accepted: its graph has one operator per fake quantize, see
    ``adopt-fake-quantize``.

    Raises:
        CaptureError: the model has int8 layers, observers, or fake quantizes that branch on tensor
            values.
    """
    for name, module in model.named_modules():
        kinds = {each.__name__ for each in type(module).__mro__ if "torch.ao." in each.__module__}
        if type(module).__module__.startswith(_INT8) and kinds.isdisjoint(_FLOAT_THERE):
            message = f"'{name}' is a {type(module).__name__}, which is int8 already"
            fix = "give the float model that torch.ao converted"
            raise CaptureError(message, rule="not-float", site=name, fix=fix)
        if "ObserverBase" in kinds and not _is_fake_quantized(model, name):
            message = f"'{name}' is a {type(module).__name__}, an observer of torch.ao"
            fix = "give the float model that torch.ao prepared; calibration= observes again"
            raise CaptureError(message, rule="not-float", site=name, fix=fix)
        if "FakeQuantizeBase" in kinds and "FusedMovingAvgObsFakeQuantize" not in kinds:
            raise CaptureError(
                f"'{name}' is a {type(module).__name__}, which branches on the values of a tensor",
                rule="not-float",
                site=name,
                fix=(
                    "train with a qconfig of FusedMovingAvgObsFakeQuantize, as "
                    "torch.ao.quantization.get_default_qat_qconfig('x86') has, or put "
                    "nn.Identity() in its place"
                ),
            )


def _is_fake_quantized(model: nn.Module, name: str) -> bool:
    """Whether an observer is part of a fake quantize, which is checked as a whole."""
    parent = model.get_submodule(name.rpartition(".")[0])
    return any(each.__name__ == "FakeQuantizeBase" for each in type(parent).__mro__)
