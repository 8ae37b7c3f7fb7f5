"""The result of ``quantize``: the q/dq graph, the lowered graph, the report, compiled modules."""

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
        backend: The backend that made the result, or for a loaded one lowers it.
        origin: The versions and pipelines that made it.
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
        # Valid while the user keeps the model: its float weights are no part of a result.
        self._model = ModelReference(model)
        self._known_explainer: Explainer | None = None

    @property
    def module(self) -> GraphModule:
        """The lowered graph, which calls int8 kernels and runs without a compiler.

        The first call packs each weight for its kernel. Residual sums are separate operators here;
        ``compile`` fuses them.

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
        the compiled module's calls only. It is compiled now, for the example inputs; other shapes
        compile at their first call.

        Args:
            strict: Raise if a planned site did not reach its kernel in compiled code, or would
                compute wrongly on this CPU; else warn.
            autocast: ``torch.bfloat16`` computes in bfloat16 between the int8 kernels, which then
                return it (int8-mixed-bf16); needs a CPU with bfloat16 instructions.
            wrapper: The code that calls the kernels: generated ``python``; generated ``cpp``, which
                takes a few more seconds to compile and less time per call; or a library compiled
                ahead of time (``aot``), for the example's shapes and ``dynamic_shapes``. The latter
                two call torch's operators, not prepared plans, which are objects of this process.
            package: Where to write the library; a temporary file by default.
            tune: First measure for some ten seconds what is fastest here: see ``tune``.

        Raises:
            QuantfxError: the backend is for another device, this CPU cannot autocast to that dtype,
                or Inductor fails; quotes its reason.
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
        """Measure prepared plans on this machine, and keep the faster choices.

        Steps are tried with each of oneDNN's implementations and on one thread. Regions are tried
        against torch's int8 operators; where these are faster, what ``module`` and ``compile``
        return from then on uses them. Where eager float operators are faster than both, int8 stays,
        and both reports name the sites.

        The file ``tuning.json`` in the folder ``QUANTFX_CACHE``, by default ``~/.cache/quantfx``,
        keeps the findings by CPU, version of oneDNN and number of threads. Later results on this
        machine read it, and it may be copied to machines of the same kind. Measure while nothing
        else runs.

        Args:
            args: Positional inputs of the model; the example inputs by default.
            seconds: Time limit.
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
        """Explain what became of one or several operators, from the model to the kernel.

        ``print`` shows it as a tree; ``as_dict()`` gives plain data.

        Args:
            name: Path of a module (``layer4.2.conv3``) or of a parameter; name of a node of the
                captured or the q/dq graph (``conv2d_3``, ``true_graph_0/conv2d``), even if passes
                took it away; or a pattern of such names (``layer4.*``).

        Raises:
            QuantfxError: the model has nothing of that name; names the nearest.
        """
        explainer = self._explainer
        return Explanations(name, tuple(map(explainer.explain, explainer.find(name))))

    def explanations(self) -> tuple[Explanation, ...]:
        """Explain every node of the q/dq graph, and every name that vanished."""
        explainer = self._explainer
        return tuple(map(explainer.explain, explainer.sites))

    def compare_sites(self, *args: Any, **kwargs: Any) -> tuple[SiteComparison, ...]:
        """Compare every kernel call with the float arithmetic that it replaces.

        Both run on the inputs that the call gets in the lowered module with fused sums. Integer
        results may differ by one step where a tie rounds the other way.

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
        """Compare every site of the q/dq graph with the float model, and diagnose losses.

        The q/dq graph runs beside the float graph, operator by operator, in the memory of both.
        Each site has its own error, with exact inputs, and the error accumulated up to it; each
        quantized tensor shows how its values fill its range. Where a tensor loses bits, a diagnosis
        names the cause and the remedy.

        Args:
            batches: Batches as for ``calibrate``, preferably unseen in calibration.
            model: The float model, or a trained ``prepare_qat`` module (compared without its
                rounding); by default the model that the result was made from, if it still exists.
            input_fn: Turns what ``batches`` yields into such a batch.
            progress: Show a progress bar where the terminal allows it.

        Raises:
            QuantfxError: the float model no longer exists, or is unknown (a loaded result).
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
        """Return what rounding each site costs at the outputs, see ``quantfx.sensitivity``."""
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
        """Write one page for a browser: report, graphs, and explanations of every operator.

        The page is self-contained: it opens from a file, without a network.

        Args:
            path: The file, e.g. ``model.html``.
            comparison: From ``compare``: numbers and heat for every site.
            stages: Further graphs by stage, which a result does not keep: ``{"captured": graph}``.
            title: Title of the page; by default the file's name.
        """
        from quantfx.tools.html.page_data import result_data
        from quantfx.tools.html.write_page import write_page

        lowered = None if self._lowering is None else self._lowering.module
        data = result_data(self, lowered=lowered, comparison=comparison, stages=stages or {})
        return write_page(data, path, title=title or Path(path).stem)

    def save(self, path: str | Path, *, input_values: bool = True) -> None:
        """Save the result to a file that ``quantfx.load`` reads on any machine.

        The file holds the q/dq graph with int8 weights, without float weights, and the config,
        report and example inputs. It is written atomically: a failure leaves no partial file.

        Args:
            path: The file, e.g. ``resnet50.quantfx``.
            input_values: Store the values of the example inputs. False stores their form only, for
                large or secret inputs; after loading they are zeros.

        Raises:
            FileError: the model or an example input holds something that files cannot store, or the
                file cannot be written.
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
        """Export the q/dq graph as an ONNX model of QuantizeLinear and DequantizeLinear pairs.

        Needs the packages ``onnx`` and ``onnxscript``. Weights stay int8, and dimensions that
        ``dynamic_shapes`` left free stay free. The model is for other runtimes: it has neither
        quantfx's kernels nor its check that integer sums stay in range on CPUs without VNNI.

        Args:
            path: The file, e.g. ``model.onnx``.

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
        """Return a result with its own copy of the weights."""
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
        """The explainer of the current result; made anew once there is a compiled module."""
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
        """Return a lowering that a wrapper's code can call: for C++, torch's operators only."""
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
        """Return a part of the q/dq graph on torch's operators, with weights packed once."""
        graph = clone(part)
        set_facts(graph, facts_of(self.quantized))
        return self.backend.lowering(graph, plans=False).eager

    def _mixed(self) -> GraphModule:
        return self.backend.lowering(self.quantized, float_dtype="bfloat16").module
