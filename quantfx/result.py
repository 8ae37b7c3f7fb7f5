"""What ``quantize`` returns: the q/dq graph, the lowered one, the report, and compiled modules."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Unpack

import torch
from torch.fx import GraphModule

from quantfx.backends.backend import Backend
from quantfx.backends.checks import targets
from quantfx.backends.checks.lowering import Lowering, require_compiled
from quantfx.model_reference import ModelReference
from quantfx.passes.graph.clone import clone
from quantfx.passes.graph.facts import facts_of, set_facts
from quantfx.passes.inputs.example import ExampleInputs
from quantfx.passes.model.given import Model
from quantfx.passes.report.compare.comparison import Comparison
from quantfx.passes.report.compare_sites import SiteComparison
from quantfx.passes.report.explain.explainer import Explainer
from quantfx.passes.report.explain.explanation import Explanation, Explanations
from quantfx.passes.report.outcome import compiled_outcomes, with_kernels_of
from quantfx.passes.report.report import Report
from quantfx.patterns.errors import QuantfxError
from quantfx.saving.origin import Origin

if TYPE_CHECKING:  # imported by the methods that need them: Inductor takes seconds
    from quantfx.backends.direct.tune import TuningReport
    from quantfx.backends.inductor.ahead_of_time import AheadOfTimeModule
    from quantfx.backends.inductor.compile import CompiledModule, Wrapper
    from quantfx.measure_sensitivity import SensitivityOptions as Options
    from quantfx.passes.report.sensitivity.sensitivity import Sensitivity


class Result:
    """A quantized model.

    Attributes:
        quantized: The q/dq graph: int8 weights, float arithmetic, runs anywhere.
        report: What was planned, converted, lowered and, after ``compile``, compiled.
        backend: The backend that made it, or lowers it.
        origin: With which versions and pipelines it was made.
    """

    def __init__(
        self,
        quantized: GraphModule,
        *,
        lowering: Lowering | None,
        report: Report,
        backend: Backend,
        inputs: ExampleInputs,
        strict: bool = True,
        origin: Origin | None = None,
        model: Model | None = None,
    ) -> None:
        self.quantized = quantized
        self.report = report
        self.backend = backend
        self.origin = Origin.of(backend) if origin is None else origin
        self._lowering = lowering
        self._inputs = inputs
        self._strict = strict
        # Only as long as the user keeps it: its float weights are no part of a result.
        self._model = ModelReference(model)
        self._known_explainer: Explainer | None = None

    @property
    def module(self) -> GraphModule:
        """The lowered graph: calls of int8 kernels, which run without a compiler.

        Each weight is packed for its kernel at the first call. Residual sums are operators of their
        own; ``compile`` fuses them.

        Raises:
            QuantfxError: the backend has no kernels.
            ContractError: a planned site missed its kernel, or its integer sums would saturate on
                this CPU, unless the model was quantized with ``strict=False``.
        """
        lowering = self._lowered
        lowering.require(strict=self._strict)
        return lowering.eager

    def compile(
        self,
        *,
        strict: bool = True,
        autocast: torch.dtype | None = None,
        wrapper: Wrapper = "python",
        package: str | Path | None = None,
        tune: bool = False,
    ) -> CompiledModule | AheadOfTimeModule:
        """Return the model compiled by Inductor onto oneDNN's int8 kernels.

        Freezing and no_grad, without which Inductor would pack weights in each call, are set for
        the compiled module's own calls only. It is compiled here, for the example inputs; other
        shapes compile when they first come.

        Args:
            strict: Refuse a compiled module in which a planned site did not reach its kernel, or
                computes wrongly on this CPU; else warn.
            autocast: ``torch.bfloat16`` to compute in it between the int8 kernels, which then
                return it (int8-mixed-bf16); needs a CPU with bfloat16 instructions.
            wrapper: What calls the kernels: generated ``python``; generated ``cpp``, which costs
                some more seconds of compiling and less per call; or a library compiled ahead of
                time (``aot``), for the example's shapes and ``dynamic_shapes``. Both of the latter
                call torch's operators, never prepared plans, which are objects of this process.
            package: Where to write the library; a temporary file by default.
            tune: Measure first what is the fastest on this machine, for some ten seconds: see
                ``tune``.

        Raises:
            QuantfxError: the backend is for another device, this CPU cannot autocast so, or
                Inductor fails; quotes its reason.
            ContractError: a planned site did not reach its kernel, or its integer sums would
                saturate on this CPU.
        """
        from quantfx.backends.inductor.compile import compile_module, require_regions
        from quantfx.backends.inductor.compiler_errors import compiler_errors
        from quantfx.backends.inductor.lowered_pair import LoweredPair

        lowering = self._lowered_for(wrapper)
        if autocast is not None:
            targets.require_autocast(autocast)
        require_regions(self.quantized)
        lowering.require(strict=strict)
        if tune:
            self.tune()
            lowering = self._lowered_for(wrapper)
        with compiler_errors():
            compiled = compile_module(
                LoweredPair(lowering.module, self._mixed),
                self._inputs,
                autocast=autocast,
                wrapper=wrapper,
                package=None if package is None else Path(package),
            )
        sites = compiled_outcomes(lowering.sites, dict(compiled.kernels), lowering.module)
        sites = with_kernels_of(self._lowered.sites, sites)
        self.report = self.report.with_compiled(sites)
        require_compiled(sites, strict=strict)
        return compiled

    def tune(self, *args: Any, seconds: float = 10.0, **kwargs: Any) -> TuningReport:
        """Measure prepared plans on this machine, and keep what is faster.

        Their steps are tried by oneDNN's implementations and on one thread, and each region against
        torch's int8 operators, which take it from then on where they are faster: in what ``module``
        and ``compile`` return afterwards. Where float operators, run eagerly, are faster than both,
        int8 stays, and both reports say so by name.

        What is found is kept in a file (``tuning.json`` in the folder ``QUANTFX_CACHE``, by default
        ``~/.cache/quantfx``) by CPU, version of oneDNN and number of threads: all that is made here
        afterwards reads it, and it may be copied to machines of the same kind. Measure while
        nothing else runs.

        Args:
            args: Positional inputs of the model; the example inputs by default.
            seconds: When to stop.
            kwargs: Keyword inputs.
        """
        from quantfx.backends.direct.tune import tune

        if not (args or kwargs):
            args, kwargs = self._inputs.args, self._inputs.kwargs
        alone = any(each.alone for each in self.backend.kernels)  # then torch's have no region
        found = tune(
            self.module,
            *args,
            seconds=seconds,
            other=None if alone else self._without_plans,
            **kwargs,
        )
        if found.moved or found.slower_than_float:
            self._lowering = self.backend.lowering(self.quantized)
            self.report = self.report.with_compiled(self._lowering.sites)
        return found

    def explain(self, name: str) -> Explanations:
        """Return what became of one operator, or of several, from the model to the kernel.

        ``print`` shows it as a tree; ``as_dict()`` gives plain data.

        Args:
            name: Path of a module (``layer4.2.conv3``) or of a parameter; name of a node of the
                captured graph or of the q/dq graph (``conv2d_3``, ``true_graph_0/conv2d``), also of
                one that passes took away; or a pattern of such names (``layer4.*``).

        Raises:
            QuantfxError: the model has nothing of that name; names the nearest.
        """
        explainer = self._explainer
        return Explanations(name, tuple(map(explainer.explain, explainer.find(name))))

    def explanations(self) -> tuple[Explanation, ...]:
        """Return what became of every node of the q/dq graph, and of every name that vanished."""
        explainer = self._explainer
        return tuple(map(explainer.explain, explainer.sites))

    def compare_sites(self, *args: Any, **kwargs: Any) -> tuple[SiteComparison, ...]:
        """Hold every kernel call against the float arithmetic that it stands for.

        Both run on the same inputs, those that the call has when the lowered module runs with sums
        fused. Integer results may differ by a step, where a tie rounds to the other side.

        Args:
            args: Positional inputs of the model; the example inputs by default.
            kwargs: Keyword inputs.

        Raises:
            QuantfxError: the kernels cannot run on this machine.
        """
        if not (args or kwargs):
            args, kwargs = self._inputs.args, self._inputs.kwargs
        return self.backend.compare_sites(self.quantized, args, kwargs)

    def compare(
        self,
        batches: Iterable[Any],
        *,
        model: Model | None = None,
        input_fn: Callable[[Any], Any] | None = None,
        progress: bool = True,
    ) -> Comparison:
        """Return how near every site of the q/dq graph is to the float model, and why not nearer.

        The q/dq graph runs beside the float graph, operator by operator: memory is that of both.
        Each site has its own error, with exact inputs, and that accumulated on the way to it; each
        quantized tensor says how its values fill its range. Where a tensor loses bits, a diagnosis
        names the cause and the remedy.

        Args:
            batches: In the forms that ``calibrate`` takes; best some that calibration did not see.
            model: The float model, or what ``prepare_qat`` returned and was trained (its function
                without rounding); by default what the result was made of, if that still exists.
            input_fn: Turns what ``batches`` yields into such a batch.
            progress: Show a progress bar where the terminal allows it.

        Raises:
            QuantfxError: the float model is gone or was never known, as of a loaded result.
            CaptureError: the float model cannot be captured.
            CalibrationError: there is no batch, or one does not fit the model.
        """
        from quantfx.compare_result import compare_result

        given = self._model.get(model)
        return compare_result(
            self, batches, self._inputs, model=given, input_fn=input_fn, progress=progress
        )

    def sensitivity(
        self, batches: Iterable[Any], model: Model | None = None, **options: Unpack[Options]
    ) -> Sensitivity:
        """Return what each site costs at the outputs: ``quantfx.sensitivity`` of this result."""
        from quantfx.measure_sensitivity import result_sensitivity

        return result_sensitivity(self, batches, self._inputs, self._model.get(model), options)

    def html(
        self,
        path: str | Path,
        comparison: Comparison | None = None,
        *,
        stages: Mapping[str, GraphModule] | None = None,
        title: str = "",
    ) -> Path:
        """Write one page for a browser: report, graphs, and the explanation of every operator.

        It holds all that it needs: it opens from a file, without a network.

        Args:
            path: Where to, e.g. ``model.html``.
            comparison: From ``compare``: numbers and heat for every site.
            stages: Graphs that a result does not keep, as ``{"captured": graph}``.
            title: Of the page; by default the name of the file.
        """
        from quantfx.tools.html.page_data import result_data
        from quantfx.tools.html.write_page import write_page

        lowered = None if self._lowering is None else self._lowering.module
        data = result_data(self, lowered=lowered, comparison=comparison, stages=stages or {})
        return write_page(data, path, title=title or Path(path).stem)

    def save(self, path: str | Path, *, input_values: bool = True) -> None:
        """Write a file from which ``quantfx.load`` makes this result again, on any machine.

        It holds the q/dq graph with its int8 weights, without the float ones, and config, report
        and example inputs. It is written in one step: a failure leaves no half file.

        Args:
            path: Where to, e.g. ``resnet50.quantfx``.
            input_values: Store what the example inputs hold. False stores their form only, for
                inputs that are large or secret; after loading they are zeros.

        Raises:
            FileError: the model or an example input holds what has no form in files, or the file
                cannot be written.
        """
        from quantfx.saving.save import save

        save(
            Path(path),
            self.quantized,
            report=self.report,
            backend=self.backend,
            origin=self.origin,
            inputs=self._inputs,
            input_values=input_values,
        )

    def export_onnx(self, path: str | Path) -> None:
        """Write the q/dq graph as an ONNX model of QuantizeLinear and DequantizeLinear pairs.

        Needs the packages ``onnx`` and ``onnxscript``. The weights are int8 in it; dimensions that
        ``dynamic_shapes`` left free are free. It is for other runtimes: none of quantfx's kernels,
        nor its check that integer sums stay in range on a CPU without VNNI, is in it.

        Args:
            path: Where to, e.g. ``model.onnx``.

        Raises:
            QuantfxError: a package is missing, or the model has what ONNX cannot express.
        """
        from quantfx.saving.onnx_export import export_onnx

        export_onnx(self.quantized, Path(path), self._inputs)

    def __copy__(self) -> Result:
        """Return a result that shares everything."""
        result = object.__new__(Result)
        result.__dict__.update(self.__dict__)
        return result

    def __deepcopy__(self, memo: dict[int, Any]) -> Result:
        """Return a result of its own weights."""
        result = object.__new__(Result)
        memo[id(self)] = result
        fields = {**self.__dict__, "_known_explainer": None}
        result.__dict__.update(copy.deepcopy(fields, memo))
        return result

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled.

        Raises:
            QuantfxError: always; says what to do.
        """
        message = "a result cannot be pickled, as it holds packed weights"
        fix = (
            "use result.save(path), and quantfx.load(path) where it is wanted; "
            "result.quantized can be pickled"
        )
        raise QuantfxError(message, rule="not-picklable", fix=fix)

    @property
    def _explainer(self) -> Explainer:
        """What explains the result as it is now; made anew once there is a compiled module."""
        known = self._known_explainer
        if known is None or known.report is not self.report:
            lowered = None if self._lowering is None else self._lowering.module
            known = Explainer(self.quantized, self.backend.recipe, lowered, self.report)
            self._known_explainer = known
        return known

    @property
    def _lowered(self) -> Lowering:
        if self._lowering is None:
            message = f"backend '{self.backend.name}' has no kernels to lower to"
            fix = "give it some with dataclasses.replace(backend, kernels=..., lower_pipeline=...)"
            raise QuantfxError(message, rule="no-kernels", site=self.backend.name, fix=fix)
        return self._lowering

    def _lowered_for(self, wrapper: Wrapper) -> Lowering:
        """Return what code of a wrapper can call: of C++, torch's own operators."""
        lowering = self._lowered
        if refused := lowering.not_here or self.backend.eager:
            raise QuantfxError(refused, rule="not-here", site=self.backend.name)
        kernels = self.backend.kernels
        if wrapper == "python" or not any(each.needs_process for each in kernels):
            return lowering
        if any(each.alone for each in kernels):
            raise QuantfxError(
                f"code of wrapper='{wrapper}' cannot call prepared plans, which Python has to call",
                rule="not-here",
                site=self.backend.name,
                fix="use wrapper='python', or quantize with kernels='auto'",
            )
        return self.backend.lowering(self.quantized, plans=False)

    def _without_plans(self, part: GraphModule) -> GraphModule:
        """Return a part of the q/dq graph on torch's own operators, weights packed once."""
        graph = clone(part)
        set_facts(graph, facts_of(self.quantized))
        return self.backend.lowering(graph, plans=False).eager

    def _mixed(self) -> GraphModule:
        return self.backend.lowering(self.quantized, float_dtype="bfloat16").module
