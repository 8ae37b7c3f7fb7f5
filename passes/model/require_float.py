"""Refuse what torch.ao has prepared or converted, with what to give instead."""

from __future__ import annotations

from torch import nn

from quantfx.passes.errors import CaptureError

_INT8 = ("torch.ao.nn.quantized.", "torch.ao.nn.intrinsic.quantized.")
_FLOAT_THERE = ("FloatFunctional", "FXFloatFunctional")  # which compute in float


def require_float(model: nn.Module) -> None:
    """Raise unless a model computes in float, in a way that torch.export can follow.

    What torch.ao prepares for training with ``FusedMovingAvgObsFakeQuantize``, which is in all its
    default qconfigs, may pass: its graph has one operator for each, see ``adopt-fake-quantize``.

    Raises:
        CaptureError: it has int8 layers, observers, or fake quantizes that decide by values.
    """
    for name, module in model.named_modules():
        kinds = {each.__name__ for each in type(module).__mro__ if "torch.ao." in each.__module__}
        if type(module).__module__.startswith(_INT8) and kinds.isdisjoint(_FLOAT_THERE):
            message = f"'{name}' is a {type(module).__name__}, int8 already"
            fix = "give the float model that torch.ao converted"
            raise CaptureError(message, rule="not-float", site=name, fix=fix)
        if "ObserverBase" in kinds and not _is_fake_quantized(model, name):
            message = f"'{name}' is a {type(module).__name__}, an observer of torch.ao"
            fix = "give the float model that torch.ao prepared; calibration= observes again"
            raise CaptureError(message, rule="not-float", site=name, fix=fix)
        if "FakeQuantizeBase" in kinds and "FusedMovingAvgObsFakeQuantize" not in kinds:
            raise CaptureError(
                f"'{name}' is a {type(module).__name__}, which looks at a tensor to decide what "
                "to do",
                rule="not-float",
                site=name,
                fix=(
                    "train with a qconfig of FusedMovingAvgObsFakeQuantize, as "
                    "torch.ao.quantization.get_default_qat_qconfig('x86') has, or put "
                    "nn.Identity() in its place"
                ),
            )


def _is_fake_quantized(model: nn.Module, name: str) -> bool:
    """Whether an observer is part of a fake quantize, which is looked at as a whole."""
    parent = model.get_submodule(name.rpartition(".")[0])
    return any(each.__name__ == "FakeQuantizeBase" for each in type(parent).__mro__)
