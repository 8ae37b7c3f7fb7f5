"""Quantization-aware training in two calls, around the user's own training loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from quantfx.backends.backend import Backend
from quantfx.make_result import choose_backend, make_result
from quantfx.passes.capture.capture import capture_given
from quantfx.passes.config.config import ConfigLike
from quantfx.passes.errors import PipelineError
from quantfx.passes.inputs.call_arguments import Examples
from quantfx.passes.inputs.example import ExampleInputs
from quantfx.passes.model.given import Model, given_model
from quantfx.passes.observe.calibrate import calibrate
from quantfx.passes.train.qat_module import QatModule
from quantfx.result import Result

_SETUP = "quantfx_qat_setup"


@dataclass(frozen=True)
class _Setup:
    """What ``convert_qat`` needs from ``prepare_qat``; kept with the module."""

    backend: Backend
    inputs: ExampleInputs


def prepare_qat(
    model: Model,
    example_inputs: Examples,
    *,
    calibration: Iterable[Any] | None = None,
    backend: str | Backend = "x86",
    config: ConfigLike | None = None,
    learn_scales: bool = False,
    example_kwargs: dict[str, Any] | None = None,
    dynamic_shapes: Any = None,
    input_fn: Callable[[Any], Any] | None = None,
    strict: bool = True,
    progress: bool = True,
    check_inputs: bool = True,
    compare: bool = True,
) -> QatModule:
    """Return a copy of ``model`` that computes with rounded weights and activations, to train.

    Train the copy like any module: ``train()`` and ``eval()``, any optimizer over its
    ``parameters()``, ``state_dict()``, autocast to bfloat16, DistributedDataParallel. It shares no
    tensors with ``model``.

    Args:
        model: A module; not changed. Submodules in eval mode stay so while the model trains.
        example_inputs: Arguments the model accepts, as for ``quantize``; use ``dynamic_shapes`` or
            a loader with ``drop_last`` if batches differ in size.
        calibration: Batches to find ranges on before training; without them the first batches of
            the training set the ranges.
        backend: A backend, or the name of one, made for this host.
        config: What is quantized how; the backend's own by default.
        learn_scales: Train the scales too (LSQ); a learned scale starts at the value of the
            config's observer. Otherwise scales of weights follow the weights' range and scales of
            activations a moving average of their range, whatever observer the config names.
        example_kwargs: Keyword arguments the model accepts.
        dynamic_shapes: Free dimensions, as for ``torch.export.export``.
        input_fn: Turns what ``calibration`` yields into a batch, e.g. ``lambda b: b[0]``.
        strict: Raise if the contract does not hold.
        progress: Show a progress bar while calibrating.
        check_inputs: Make the copy refuse inputs that it would compute wrongly with, as for
            ``capture``.
        compare: Call the model and its graph with copies of the example inputs; warn if they differ
            in evaluation, and refuse a model that keeps state in plain attributes.

    Raises:
        CaptureError: torch.export rejects the model, or the model takes another path in training or
            keeps state in plain attributes.
        ConfigError: a rule selects nothing, or asks for what the backend cannot do.
        ContractError: there is nothing to quantize.
        PipelineError: the backend does not train.
        CalibrationError: the data is empty, non-finite, or does not fit the model.
    """
    chosen = choose_backend(backend, config)
    given = given_model(model, example_inputs, example_kwargs, dynamic_shapes)
    graph = capture_given(given, training=True, check_inputs=check_inputs, compare=compare)
    prepared = chosen.prepare(graph, qat=True, learn_scales=learn_scales, strict=strict)
    if calibration is not None:
        calibrate(prepared, calibration, input_fn=input_fn, progress=progress)
    inputs = ExampleInputs(given.args, given.kwargs, given.dynamic_shapes)
    prepared.meta[_SETUP] = _Setup(chosen, inputs)
    return prepared


def convert_qat(trained: QatModule, *, strict: bool = True) -> Result:
    """Return the int8 model of a trained ``prepare_qat`` module.

    Batch norms are folded into the weights. The q/dq graph is the same as by calibration, with the
    weights and ranges of the training.

    Args:
        trained: The trained module, or a copy; not changed, so training can go on.
        strict: Raise if the contract does not hold.

    Raises:
        CalibrationError: a tensor was seen neither in training nor in calibration.
        ContractError: a planned site was not converted.
        PipelineError: the module does not come from ``prepare_qat``.
    """
    setup = trained.meta.get(_SETUP) if isinstance(trained, QatModule) else None
    if not isinstance(setup, _Setup):
        message = f"a {type(trained).__name__} is not a module that prepare_qat returned"
        fix = (
            "give it what prepare_qat returned (a wrapper such as DistributedDataParallel "
            "holds it as .module), or use backend.convert"
        )
        raise PipelineError(message, rule="not-prepared", fix=fix)
    quantized = setup.backend.convert(trained, strict=strict)
    return make_result(
        trained, quantized, setup.backend, setup.inputs, strict=strict, model=trained
    )
