"""The workload of a benchmark: a network, an example, and batches to calibrate and compare on."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from quantfx.patterns.errors import QuantfxError, did_you_mean, unknown_name
from quantfx.tools.models import photographs
from quantfx.tools.models.bert import BertConfig, bert, bert_inputs
from quantfx.tools.models.efficientnet_lite import load_efficientnet_lite0
from quantfx.tools.models.mobilenet_v2 import mobilenet_v2
from quantfx.tools.models.resnet import resnet50

Batch = tuple[Tensor, ...]

_BATCHES = 8
_BERT_LENGTH = 128


class WorkloadError(QuantfxError):
    """There is no such model, or the result of the user's function cannot be benchmarked."""


@dataclass(frozen=True)
class Workload:
    """A network and its data, the same in every process that loads it.

    Attributes:
        model: The network in eval mode.
        example: Positional arguments of the timed calls.
        calibration: Batches to calibrate with, of the example's shapes.
        test: Batches on which engines are compared with the float network.
    """

    model: nn.Module
    example: Batch
    calibration: tuple[Batch, ...]
    test: tuple[Batch, ...]


def named_workloads() -> tuple[str, ...]:
    """Return the names that ``load_workload`` knows without a user's function."""
    return tuple(_NAMED)


def require_workload(model: str) -> None:
    """Refuse a model that ``load_workload`` cannot find, without building it.

    Raises:
        WorkloadError: an unknown name, or a function that cannot be imported.
    """
    if ":" in model:
        _function(model)
    elif model not in _NAMED:
        raise WorkloadError(
            f"no model '{model}'{did_you_mean(model, _NAMED)}; one of {', '.join(_NAMED)}, or "
            "your own with --model package.module:function",
            rule="unknown-name",
            site=model,
        )


def load_workload(model: str, batch: int = 1) -> Workload:
    """Build a named network, or call the user's ``package.module:function``.

    The function returns ``(model, example_inputs, calibration_batches)``: a module in eval mode, a
    tuple of tensors, and batches that are tensors or such tuples.

    Args:
        model: A name or a function.
        batch: Rows of a batch of a named network; a user's function decides for itself.

    Raises:
        WorkloadError: there is no such model, or it returns something else.
        QuantfxError: a package that the network needs is missing.
    """
    require_workload(model)
    if ":" not in model:
        return _NAMED[model](batch)
    return _checked(model, call_function(model))


def call_function(model: str) -> tuple[nn.Module, Any, Iterable[Any]]:
    """Call the user's function, and return its module in eval mode, example and batches.

    Args:
        model: ``package.module:function``.

    Raises:
        WorkloadError: there is no such function, it raises, or it returns something else.
    """
    function = _function(model)
    torch.manual_seed(0)  # every engine's process calls it, and all must get equal weights
    try:
        returned = function()
    except Exception as error:
        raise WorkloadError(
            f"{model} raised {type(error).__name__}: {error}", rule="foreign-code", site=model
        ) from error
    return _three(model, returned)


def _function(model: str) -> Callable[[], object]:
    module_name, _, name = model.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # as `python -m` does, to find the user's own module
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        message = f"{model}: importing '{module_name}' raised {type(error).__name__}: {error}."
        fix = "run in the folder that holds it, or install it"
        raise WorkloadError(message, rule="foreign-code", site=model, fix=fix) from error
    function: Callable[[], object] | None = getattr(module, name, None)
    if not callable(function):
        known = [
            each
            for each, value in vars(module).items()
            if callable(value) and not isinstance(value, type) and not each.startswith("_")
        ]
        of = f"{model}: '{module_name}'"
        raise unknown_name(WorkloadError, "function", name, known, of=of)
    return function


def _three(model: str, returned: object) -> tuple[nn.Module, Any, Iterable[Any]]:
    if not isinstance(returned, tuple) or len(returned) != 3:
        raise WorkloadError(
            f"{model} returned {type(returned).__name__}, not the tuple (model, example_inputs, "
            "calibration_batches)",
            rule="not-a-workload",
            site=model,
        )
    network, example, batches = returned
    if not isinstance(network, nn.Module):
        message = f"{model}: the model is a {type(network).__name__}, not an nn.Module"
        raise WorkloadError(message, rule="not-a-workload", site=model)
    if network.training:
        message = f"{model}: the model is in training mode"
        raise WorkloadError(message, rule="not-a-workload", site=model, fix="return model.eval()")
    if not isinstance(batches, Iterable):
        message = f"{model}: calibration_batches are a {type(batches).__name__}"
        raise WorkloadError(message, rule="not-a-workload", site=model)
    return network, example, batches


def _checked(model: str, given: tuple[nn.Module, Any, Iterable[Any]]) -> Workload:
    network, example, batches = given
    inputs = _tensors(model, "example_inputs", example)
    calibration = tuple(_tensors(model, "a calibration batch", batch) for batch in batches)
    shapes = [tensor.shape for tensor in inputs]
    for batch in calibration:
        if [tensor.shape for tensor in batch] != shapes:
            raise WorkloadError(
                f"{model}: a calibration batch has "
                f"shapes {[tuple(tensor.shape) for tensor in batch]}, the "
                f"example {[tuple(shape) for shape in shapes]}; peers need them equal",
                rule="not-a-workload",
                site=model,
            )
    if not calibration:
        raise WorkloadError(
            f"{model}: there are no calibration batches", rule="no-batches", site=model
        )
    return Workload(network, inputs, calibration, calibration)


def _tensors(model: str, what: str, given: object) -> Batch:
    if isinstance(given, Tensor):
        return (given,)
    values: tuple[object, ...] = tuple(given) if isinstance(given, tuple | list) else (given,)
    tensors = tuple(value for value in values if isinstance(value, Tensor))
    if not tensors or len(tensors) < len(values):
        raise WorkloadError(
            f"{model}: {what} is neither a tensor nor a tuple of tensors; all engines are fed "
            "positional tensors, so wrap the model in a module that takes them",
            rule="not-a-workload",
            site=model,
        )
    return tensors


def _images(make: Callable[[], nn.Module], batch: int) -> Workload:
    def images(seed: int) -> Batch:
        return (torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(seed)),)

    return _seeded_workload(make(), images)


def _bert(batch: int) -> Workload:
    return _seeded_workload(
        bert(), lambda seed: bert_inputs(BertConfig(), batch, _BERT_LENGTH, seed)
    )


def _seeded_workload(model: nn.Module, inputs: Callable[[int], Batch]) -> Workload:
    calibration = tuple(inputs(seed) for seed in range(1, _BATCHES + 1))
    test = tuple(inputs(seed) for seed in range(_BATCHES + 1, 2 * _BATCHES + 1))
    return Workload(model, inputs(0), calibration, test)


def _efficientnet_lite0(batch: int) -> Workload:
    model = load_efficientnet_lite0()
    calibration = _full(photographs.calibration_crops(), batch)
    test = _full(photographs.test_crops(), batch)
    return Workload(model, test[0], calibration, test)


def _full(images: Tensor, batch: int) -> tuple[Batch, ...]:
    if batch > len(images):
        message = f"efficientnet_lite0 has {len(images)} images; --batch is {batch}"
        raise WorkloadError(message, rule="number-range", site="--batch")
    starts = range(0, len(images) - batch + 1, batch)
    return tuple((images[start : start + batch],) for start in starts)


_NAMED: dict[str, Callable[[int], Workload]] = {
    "resnet50": lambda batch: _images(resnet50, batch),
    "mobilenet_v2": lambda batch: _images(mobilenet_v2, batch),
    "bert": _bert,
    "efficientnet_lite0": _efficientnet_lite0,
}
