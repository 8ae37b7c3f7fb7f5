"""Quantize a model in use: observe its first calls, then run it in int8."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from threading import RLock
from typing import Any, Literal, TypeVar

import torch
from torch import nn
from torch.fx import GraphModule

from quantfx.backends.backend import Backend
from quantfx.backends.checks.lowering import complain
from quantfx.backends.inductor.compile_attempts import Attempt, attach_watch, watch_compiles
from quantfx.backends.inductor.sealed_module import call_outside
from quantfx.backends.inductor.torch_internals import BackendCompilerFailed
from quantfx.calling_model import ModelMethods
from quantfx.dynamo.compile_frame import Plan, compile_frame
from quantfx.dynamo.compile_report import CompileReport
from quantfx.dynamo.compile_state import CompileState
from quantfx.dynamo.internals import require_internals
from quantfx.dynamo.options import Options
from quantfx.dynamo.watch_calls import CallWatch
from quantfx.make_result import choose_backend
from quantfx.passes.annotate.check_config import CheckConfig
from quantfx.passes.config.config import ConfigLike
from quantfx.passes.errors import CalibrationError, ConfigError, ContractError, OptionError
from quantfx.patterns.errors import QuantfxError
from quantfx.patterns.torch_version import warn_of_untested

State = Literal["observing", "int8", "int8 and float"]


Kind = TypeVar("Kind", bound=type[Any])


# Of a class with an attribute ``model``, the other module.
_METHODS: dict[str, Callable[..., Any]] = {
    "__getitem__": lambda self, key: self.model[key],
    "__len__": lambda self: len(self.model),
    "__iter__": lambda self: iter(self.model),
    "__contains__": lambda self, key: key in self.model,
}


class AutoQuantized(nn.Module):
    """A model that observes its first calls in float, then runs in int8.

    Both phases are a ``torch.compile`` of the same model, and Dynamo guards what the int8 graphs
    depend on: graph breaks, dynamic sizes and new shapes work as for any compiled model.

    Args:
        model: A module in eval mode; not changed. It is this module's only submodule. Attributes,
            items and methods that this module lacks are the model's. A method that calls the model,
            as ``generate`` of Hugging Face does, calls this module; one that calls parts of the
            model computes in float.
        backend: The backend that quantizes.
        batches: Number of calls to observe.
        options: Options of ``quantfx.auto``.
        compile_options: Options of ``torch.compile``.
    """

    def __init__(
        self,
        model: nn.Module,
        backend: Backend,
        batches: int,
        options: Options,
        compile_options: dict[str, Any],
    ) -> None:
        super().__init__()
        self.model = model
        self._methods = ModelMethods()
        self._backend = backend
        self._batches = batches
        self._options = options
        self._compile_options = compile_options
        self._lock = RLock()
        self._calls = 0
        self._watch = CallWatch(options.state, type(model).__name__)
        self._int8: Callable[..., Any] | None = None
        self._observe = self._compile_plan(Plan(backend, options, math.inf))
        self.train(model.training)

    @property
    def state(self) -> State:
        """``observing``, in float, or ``int8``.

        It is ``int8 and float`` once Dynamo has left some calls to Python. A warning said so;
        ``report`` says which calls, and why.
        """
        if self._int8 is None:
            return "observing"
        return "int8 and float" if self._options.state.is_partly_float else "int8"

    @property
    def observed(self) -> int:
        """Number of calls observed so far, by the graph that saw the most."""
        return max((each.count for each in self._options.state.calibrations), default=0)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the model.

        Raises:
            CalibrationError: an observed call holds NaN, or an int8 call takes a path that no
                observed call took.
            StaleWeightsError: a weight was written to since conversion.
            QuantfxError: the model cannot be quantized as asked, or ``torch.export`` calls this,
                which would export the float model.
        """
        if torch.compiler.is_compiling():
            return _outside(self, args, kwargs)
        return self.call_now(args, kwargs)

    def call_now(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Compute the model as ``forward`` does outside of ``torch.compile``."""
        run = self._phase() if self._int8 is None else self._int8
        call = self._watch.call
        call.ran = False
        try:
            result = run(*args, **kwargs)
        except BaseException as error:
            self._watch.forget()
            inner = getattr(error, "inner_exception", None)
            if isinstance(error, BackendCompilerFailed) and isinstance(inner, QuantfxError):
                raise inner from None  # ours, without the frames of Dynamo around it
            raise
        if call.attempts or not call.ran:
            self._watch.judge(is_int8=self._int8 is not None)
        return result

    def __getattr__(self, name: str) -> Any:
        """Return the model's attribute of that name if this module has none."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            model = self.__dict__.get("_modules", {}).get("model")
            if model is None or name.startswith("__"):  # Python's protocols are not the model's
                raise
            return self._methods.bound(getattr(model, name), model, self)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set the model's attribute of that name if only the model has one."""
        model = self.__dict__.get("_modules", {}).get("model")
        ours = name.startswith("_") or name in self.__dict__ or hasattr(type(self), name)
        if model is not None and not ours and name != "model" and hasattr(model, name):
            setattr(model, name, value)
        else:
            super().__setattr__(name, value)

    def convert(self) -> AutoQuantized:
        """Run in int8 from the next call on, however many calls were observed; return ``self``.

        A second call takes the current weights with the ranges that were observed. If the weights
        have changed much since, observe anew with ``quantfx.auto``.

        Raises:
            CalibrationError: no call was observed.
            ConfigError: a rule selects nothing in any graph.
        """
        with self._lock:
            if not self._options.state.calibrations:
                raise CalibrationError(
                    "no call was observed", rule="never-run", fix="call the model with data first"
                )
            self._require_rules()
            self._options.state.start_again()
            self._watch.start_again()
            plan = Plan(self._backend, self._options, 0, observed_only=True)
            self._int8 = self._compile_plan(plan)
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Refuse to be copied or pickled.

        Raises:
            QuantfxError: always; says what to copy or save instead.
        """
        message = "the compiled code of a model cannot be copied or pickled"
        fix = (
            "copy or save .model and give it to quantfx.auto again, or use "
            "quantfx.quantize(...).save(path)"
        )
        raise QuantfxError(message, rule="not-picklable", fix=fix)

    def release_float_weights(self) -> int:
        """Free the memory of float weights that int8 code has replaced; return the bytes.

        This cannot be undone, see ``CompileState.release_float_weights``: call it once every kind
        of input was seen in int8.

        Raises:
            QuantfxError: the model is still being observed.
        """
        return self._options.state.release_float_weights()

    @property
    def report(self) -> CompileReport:
        """The account of each graph of the model, and of each operator once the graph is int8."""
        return self._options.state.report

    def _require_rules(self) -> None:
        """Refuse rules of the config that are unused in every graph of the model."""
        graphs = [each.vain for each in self._options.state.records]
        rules = set.intersection(*(set(each) for each in graphs)) if graphs else set[str]()
        if rules:
            # Of the graphs' messages, the one with the nearest name.
            messages = [max((each[rule] for each in graphs), key=len) for rule in sorted(rules)]
            error = ConfigError("; ".join(messages), rule="unused-rule", site=min(rules))
            complain(error, strict=self._options.strict)

    def _require_plan(self) -> None:
        """Refuse a model in which nothing would ever become int8."""
        if self._options.state.calibrations:
            return
        reasons = [f"  {each.where}: {each.reason}" for each in self._options.state.records]
        graphs = (
            "\n".join(["of its graphs:", *reasons]) if reasons else "Dynamo makes no graph of it"
        )
        name = type(self.model).__name__
        message = f"nothing to quantize in {name} after {self._calls} call(s); {graphs}"
        error = ContractError(message, rule="nothing-to-quantize", site=name)
        complain(error, strict=self._options.strict)

    def _phase(self) -> Callable[..., Any]:
        """Return what runs a call, after becoming int8 if enough calls were observed."""
        with self._lock:
            if self._int8 is None and self._is_ready():
                self.convert()
            elif self._calls == max(self._batches, 1):
                self._require_plan()
            self._calls += not self.model.training
            return self._observe if self._int8 is None else self._int8

    def _is_ready(self) -> bool:
        known = self._options.state.calibrations
        if not known or any(each.weights.changed for each in known):
            return False  # graphs of other weights are observed anew
        return self.observed >= self._batches or not any(each.needs_data for each in known)

    def _compile_plan(self, plan: Plan) -> Callable[..., Any]:
        watch = self._watch
        advice = ". What was observed so far is used from convert() on"

        def compiler(module: GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
            watch_compiles()
            return watch.watched(compile_frame(module, inputs, plan))

        def attempted(attempt: Attempt) -> bool:
            return watch.attempted(attempt, "" if plan.observed_only else advice)

        compile_model: Any = torch.compile  # torch 2.13 declares no isolate_recompiles
        compiled = compile_model(
            self.model,
            backend=attach_watch(compiler, attempted),
            isolate_recompiles=True,
            **self._compile_options,
        )
        # Not the module itself, which would become a submodule with a second copy of each name.
        forward: Callable[..., Any] = compiled.forward
        return forward


_outside = call_outside(
    "what quantfx.auto made cannot be exported: export .model, or use quantfx.quantize, whose "
    "results are",
    reason="quantfx.auto compiles its model itself, to int8",
)


def auto(
    model: nn.Module,
    *,
    backend: str | Backend = "x86",
    calibration_batches: int = 8,
    config: ConfigLike | None = None,
    strict: bool = True,
    dynamic: bool | None = None,
    fullgraph: bool = False,
    check_weights: bool = True,
) -> AutoQuantized:
    """Return ``model`` as a module that quantizes itself, also for models that export rejects.

    The first calls are observed; they compute in float, bit for bit what the model computes. Then
    the model is converted, lowered and compiled for int8, graph by graph where Dynamo breaks it.

    Args:
        model: A module in eval mode; not changed. In training mode it computes in float.
        backend: A backend, or the name of one, made for this host.
        calibration_batches: Number of calls to observe.
        config: What is quantized how, as for ``quantize``.
        strict: Raise if the contract does not hold; else warn.
        dynamic: As for ``torch.compile``.
        fullgraph: As for ``torch.compile``.
        check_weights: Refuse calls after weights were written to.

    Raises:
        OptionError: ``calibration_batches`` is no number of calls.
        QuantfxError: the backend or config does not exist, or the backend cannot run here.
    """
    warn_of_untested()
    require_internals()
    if isinstance(calibration_batches, bool) or calibration_batches < 0:
        message = f"calibration_batches={calibration_batches} is not a number of calls"
        raise OptionError(message, rule="number-range", site="calibration_batches")
    chosen = choose_backend(backend, config)
    pipeline = chosen.prepare_pipeline
    if CheckConfig() in pipeline.passes:
        # A rule must select something in one graph of the model, not in each.
        pipeline = pipeline.replace(CheckConfig.name, CheckConfig(unmatched="remark"))
        chosen = replace(chosen, prepare_pipeline=pipeline)
    options = Options(strict=strict, check_weights=check_weights, state=CompileState())
    compile_options = {"dynamic": dynamic, "fullgraph": fullgraph}
    kind = kind_for(AutoQuantized, model)
    return kind(model, chosen, calibration_batches, options, compile_options)


def kind_for(kind: Kind, model: nn.Module) -> Kind:
    """Return ``kind``, or a subclass with those container methods that the model has.

    Python looks such methods up in the class; one class with all of them would give every model a
    length.
    """
    make: Any = _kind
    found: Kind = make(kind, frozenset(name for name in _METHODS if hasattr(type(model), name)))
    return found


@cache
def _kind(kind: Any, names: frozenset[str]) -> Any:
    if not names:
        return kind
    body: dict[str, Any] = {name: _METHODS[name] for name in sorted(names)}
    return type(kind.__name__, (kind,), {**body, "__module__": kind.__module__})
