"""Write the smallest graph that shows a fault, as a file to run."""

from __future__ import annotations

import inspect
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from quantfx.backends.backend import Backend
from quantfx.bisect_model import make_subject
from quantfx.bisection.backend_code import backend_code, context_code
from quantfx.bisection.bisect_result import BisectResult
from quantfx.bisection.fault_file import Ending, importable, write_fault
from quantfx.bisection.ranges import Ranges
from quantfx.bisection.shrink import shrink
from quantfx.bisection.slices import Whole
from quantfx.bisection.trials import Trials, Verdict, error_kind
from quantfx.checks import Check, runs
from quantfx.make_result import choose_backend
from quantfx.passes.annotate.check_config import CheckConfig
from quantfx.passes.capture.capture import capture_given
from quantfx.passes.config.config import ConfigLike
from quantfx.passes.errors import BisectError
from quantfx.passes.inputs.call_arguments import Examples, example_arguments
from quantfx.passes.inputs.example import ExampleInputs
from quantfx.passes.inputs.leaves import input_leaves
from quantfx.passes.model.given import Model, given_model
from quantfx.passes.observe.calibrate import calibrate
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.failed_run import FailedRun, failed_run_of, is_reducible
from quantfx.passes.pipeline.pipeline import Pipeline
from quantfx.patterns.errors import QuantfxError, QuantfxWarning, unknown_name
from quantfx.patterns.sizes import likely
from quantfx.result import Result


@dataclass(frozen=True)
class Reduction:
    """The smallest graph that was found.

    Attributes:
        path: The file.
        operators: Names of the nodes in it.
        message: The fault, as the file prints it.
        evaluations: Number of graphs tried.
    """

    path: Path
    operators: tuple[str, ...]
    message: str
    evaluations: int

    def __str__(self) -> str:
        return (
            f"{self.path}: {len(self.operators)} operator(s) ({', '.join(self.operators)}), found "
            f"in {self.evaluations} trials; {self.message}"
        )


class Fault(ABC):
    """A fault that graphs may show."""

    @abstractmethod
    def shows(self, graph: GraphModule, inputs: tuple[Tensor, ...]) -> str:
        """Return what is wrong; empty if the graph does not show this fault."""

    @abstractmethod
    def ending(self) -> Ending:
        """Return the end of a file that shows the fault."""

    def exit_status(self, graph: GraphModule, inputs: Sequence[Tensor]) -> int:
        """Print what is wrong and return 1, or return 0; files call this."""
        message = self.shows(graph, tuple(inputs))
        print(message or "the fault is gone")
        return bool(message)


@dataclass(frozen=True)
class CheckFault(Fault):
    """The fault that a check fails, in one way, of the result of a graph.

    Attributes:
        backend: The backend that quantizes; the inputs are the calibration data.
        check: The check that fails.
        kind: How it fails, see `Verdict.kind`.
        calibrated: Whether to calibrate.
        strict: As for ``quantize``.
    """

    backend: Backend
    check: Check | Callable[[Result], bool]
    kind: str
    calibrated: bool = True
    strict: bool = True

    def shows(self, graph: GraphModule, inputs: tuple[Tensor, ...]) -> str:
        """Quantize and check."""
        verdict = self.verdict(graph, ExampleInputs(inputs))
        told = f"the result {verdict}" + f" {self._asked}" * (verdict.error is None)
        return told if verdict.kind == self.kind else ""

    def verdict(self, graph: GraphModule, inputs: ExampleInputs) -> Verdict:
        """Return the check's verdict on the graph, whatever the kind."""
        names = inspect.signature(graph.forward).parameters
        batch = dict(zip(names, inputs.args, strict=False)) | inputs.kwargs
        data = [batch] if self.calibrated else None
        subject = make_subject(
            self.backend, graph, inputs, self.check, strict=self.strict, data=data
        )
        ranges = Ranges(partial(calibrate, calibration=data, progress=False) if data else None)
        return Trials(subject, ranges).run_without()

    def of_kind(self, graph: GraphModule, inputs: ExampleInputs) -> CheckFault:
        """Return the fault that the whole graph shows.

        Raises:
            BisectError: the graph shows no fault.
        """
        verdict = self.verdict(graph, inputs)
        if verdict.good:
            message = "nothing is wrong: the result passes the check"
            fix = "give a check that fails, or the example with which it does"
            raise BisectError(message, rule="nothing-wrong", fix=fix)
        return replace(self, kind=verdict.kind)

    def of_any_part(self, graph: GraphModule) -> CheckFault:
        """Return the same fault for parts of a graph, in which config rules may select nothing."""
        backend = self.backend
        pipeline = _without_check(backend.prepare_pipeline, backend.context, graph)
        return replace(self, backend=replace(backend, prepare_pipeline=pipeline))

    @property
    def _asked(self) -> str:
        """The code of the check."""
        is_value = isinstance(self.check, Check)
        return repr(self.check) if is_value else getattr(self.check, "__qualname__", "")

    def ending(self) -> Ending:
        """Return code that makes the backend and asks the check."""
        is_value = isinstance(self.check, Check)
        imports = [importable(type(self.check) if is_value else self.check)]
        options = [repr(self.kind), f"calibrated={self.calibrated}", f"strict={self.strict}"]
        fault = f"CheckFault(backend, {self._asked}, {', '.join(options)})"
        return Ending(
            (f"fault = {fault}", "sys.exit(fault.exit_status(module, graph.inputs))"),
            setup=backend_code(self.backend),
            imports=(
                "from dataclasses import replace",
                "import quantfx",
                "from quantfx import Pipeline",
                *imports,
                "from quantfx.reduce_model import CheckFault",
            ),
        )


@dataclass(frozen=True)
class PipelineFault(Fault):
    """The fault that a pipeline raises, in one way.

    Attributes:
        pipeline: The pipeline that raises.
        context: The context that it is given.
        kind: The kind of the error, see ``error_kind``.
    """

    pipeline: Pipeline
    context: Context | None
    kind: str

    def shows(self, graph: GraphModule, inputs: tuple[Tensor, ...]) -> str:
        """Run the pipeline."""
        try:
            self.pipeline.run(graph, self.context)
        except QuantfxError as error:
            told = str(error).partition("\n")[0]
            return (
                f"raises {type(error).__name__}: {told}" if error_kind(error) == self.kind else ""
            )
        return ""

    def of_any_part(self, graph: GraphModule) -> PipelineFault:
        """Return the fault for graphs in which rules of the config select nothing."""
        return replace(self, pipeline=_without_check(self.pipeline, self.context, graph))

    def ending(self) -> Ending:
        """Return code that runs the pipeline."""
        ours = "quantfx."
        foreign = {
            type(each) for each in self.pipeline if not type(each).__module__.startswith(ours)
        }
        named = ", ".join(sorted(each.__name__ for each in foreign))
        parsed = f"Pipeline.parse(PIPELINE{f', passes=[{named}]' if named else ''})"
        return Ending(
            (
                f"fault = PipelineFault({parsed}, {context_code(self.context)}, {self.kind!r})",
                "sys.exit(fault.exit_status(module, graph.inputs))",
            ),
            setup=(f"PIPELINE = {str(self.pipeline)!r}",),
            imports=(
                "import quantfx",
                "from quantfx import Pipeline",
                *sorted(map(importable, foreign)),
                "from quantfx.reduce_model import PipelineFault",
            ),
        )


def reduce(
    what: Model | GraphModule | QuantfxError,
    example: Examples = (),
    *,
    path: str | Path,
    check: Check | Callable[[Result], bool] | None = None,
    near: BisectResult | str | None = None,
    calibrated: bool = True,
    backend: str | Backend = "x86",
    config: ConfigLike | None = None,
    example_kwargs: dict[str, Any] | None = None,
    strict: bool = True,
    most: int = 200,
) -> Reduction:
    """Write the smallest graph that shows a fault as a Python file, and describe it.

    Operators are taken out; values that the rest reads from them become arguments, with their
    values for the example. The file holds the graph as code, its inputs and weights (random ones if
    the fault stays, else in a file beside it), the pipelines as text, and the assertion. When run,
    it prints what is wrong and exits with status 1.

    Args:
        what: A model, a graph of ``capture``, or an error of a pipeline run on a captured graph,
            whose message offers this.
        example: As for ``quantize``.
        path: The file, whose name ends in ``.py``.
        check: The check that fails: one of ``quantfx.checks``, or a function of a `Result` that the
            file can import. By default the check that nothing raises.
        near: Where to look first: what ``bisect`` found, or the name of a node.
        calibrated: Whether the example is calibration data, for static quantization.
        backend: As for ``quantize``.
        config: As for ``quantize``.
        example_kwargs: As for ``quantize``.
        strict: As for ``quantize``.
        most: Most graphs to try when taking operators out.

    Raises:
        BisectError: there is no fault, or the graph calls modules or lacks ``near``.
        FileError: the file cannot be written.
    """
    if isinstance(what, QuantfxError):
        run = _require_run(what)
        raised = PipelineFault(run.pipeline, run.context, error_kind(what))
        fault: Fault = raised.of_any_part(run.module)
        return _reduce(run.module, _made_leaves(run.module), fault, Path(path), [], most)
    graph, inputs = _captured(what, example, example_kwargs)
    names = _nodes_near(near, graph)
    chosen = choose_backend(backend, config)
    asked = check or runs()
    failed = CheckFault(chosen, asked, "", calibrated, strict)
    fault = failed.of_kind(graph, inputs).of_any_part(graph)
    leaves = [leaf for _, leaf in input_leaves(graph, inputs.args, inputs.kwargs)]
    return _reduce(graph, leaves, fault, Path(path), names, most)


def _reduce(
    graph: GraphModule,
    leaves: Sequence[object],
    fault: Fault,
    path: Path,
    near: list[str],
    most: int,
) -> Reduction:
    ending = fault.ending()  # report before the search what cannot be written
    whole = Whole(graph, leaves)
    found = shrink(whole, fault.shows, near=near, budget=most)
    if found is None:
        raise BisectError(
            "the fault is gone once the graph is written anew, with all its operators",
            rule="nothing-wrong",
            fix="reduce a model whose fault does not depend on control flow, or on free sizes",
        )
    write_fault(path, found, ending)
    operators = tuple(each.name for each in found.graph.calls)
    return Reduction(path, operators, found.message, found.evaluations)


def _nodes_near(near: BisectResult | str | None, graph: GraphModule) -> list[str]:
    if not isinstance(near, str):
        return [each.node for each in near.culprits] if near else []
    known = [node.name for node in graph.graph.nodes]
    if near not in known:
        raise unknown_name(BisectError, "node", near, known, of="the captured graph")
    return [near]


def _captured(
    what: Model | GraphModule, example: Examples, kwargs: dict[str, Any] | None
) -> tuple[GraphModule, ExampleInputs]:
    if isinstance(what, GraphModule) and is_reducible(what):
        return what, ExampleInputs(*example_arguments(what, example, kwargs))
    given = given_model(what, example, kwargs, None)
    return capture_given(given), ExampleInputs(given.args, given.kwargs)


def _without_check(pipeline: Pipeline, context: Context | None, graph: GraphModule) -> Pipeline:
    """Return the pipeline without the pass that refuses config rules that select nothing.

    The pass changes nothing, so accepted graphs give the same result without it. It stays if there
    are no rules, or if the pipeline fails up to and including it.
    """
    has_rules = context and context.recipe and context.recipe.config.rules
    name = CheckConfig.name
    if not has_rules or name not in pipeline.names:
        return pipeline
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", QuantfxWarning)
        try:
            pipeline.upto(name).run(graph, context)
        except QuantfxError:
            return pipeline
    return pipeline.without(name)


def _require_run(error: QuantfxError) -> FailedRun:
    run = failed_run_of(error)
    if run is None:
        raise BisectError(
            f"the run that raised this {type(error).__name__} is not known",
            rule="not-captured",
            fix="give the model, with the check quantfx.checks.runs()",
        )
    return run


def _made_leaves(module: GraphModule) -> list[object]:
    """Return a value for each argument, of the right form: pipelines read no elements."""
    return [
        _made(node.meta["val"]) for node in module.graph.find_nodes(op="placeholder", sort=True)
    ]


def _made(value: object) -> object:
    if not isinstance(value, Tensor):
        return likely(value, 2) if isinstance(value, torch.SymInt) else value
    shape = [likely(size, 2) if isinstance(size, torch.SymInt) else size for size in value.shape]
    return torch.full(shape, 1 if value.is_floating_point() else 0, dtype=value.dtype)
