"""The checks of every case; each that fails is a fault."""

from __future__ import annotations

import fnmatch
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

import quantfx
from quantfx.backends.backend import Backend
from quantfx.make_result import make_result
from quantfx.passes.capture.capture import capture
from quantfx.passes.inputs.example import ExampleInputs
from quantfx.passes.inputs.leaves import leaves_in
from quantfx.passes.observe.calibrate import calibrate
from quantfx.passes.pipeline.base import Pass
from quantfx.passes.pipeline.instruments import Instrument
from quantfx.passes.pipeline.record import PassRecord
from quantfx.passes.report.contract import planned_matches
from quantfx.patterns.errors import QuantfxError
from quantfx.result import Result
from quantfx.tools.fuzz.case import Case
from quantfx.tools.fuzz.check_meta import wrong_meta
from quantfx.tools.fuzz.check_plans import wrong_plans
from quantfx.tools.fuzz.check_ranges import wrong_ranges
from quantfx.tools.fuzz.check_sharing import wrong_groups
from quantfx.tools.fuzz.check_weights import wrong_weights
from quantfx.tools.fuzz.expected_noise import noise_power, power

FLOAT = 1e-5  # of the largest magnitude: rewrites in float
STEPS, ERROR = 1, 1e-4  # for kernels: steps of integer results; share of the largest float result
NOISE = 10.0  # noise of a q/dq graph, as a multiple of the cost of rounding
MORE, LEAST = 10.0, 1e-3  # noise with other sizes, as a multiple of that with captured sizes


@dataclass(frozen=True)
class Fault:
    """A failed check.

    Attributes:
        seed: Seed of the case.
        check: Name of the check.
        detail: The finding.
    """

    seed: int
    check: str
    detail: str

    def __str__(self) -> str:
        return f"seed {self.seed}: {self.check}: {self.detail}"


def check(
    case: Case,
    backend: Backend,
    *,
    saves: bool = True,
    compiles: Mapping[str, Any] | None = None,
) -> list[Fault]:
    """Quantize a case and return its faults.

    Args:
        case: The case.
        backend: The backend to quantize with.
        saves: Whether to save and load the result.
        compiles: Options of the backend for ``torch.compile``, to try this as well, which takes
            seconds; None to skip it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        checking = _Checking(case, backend)
        try:
            checking.run(saves=saves, compiles=compiles)
        except QuantfxError as error:
            checking.note(f"refused ({error.rule})", str(error))
        except Exception as error:  # any error is a finding
            checking.note("failed", f"{type(error).__name__}: {error}")
    return checking.faults


def expected(case: Case) -> Counter[str]:
    """Return how often each operator must be planned, and what no larger template can take."""
    found: Counter[str] = Counter()
    live = case.live
    for each in case.planted:
        if each.miss or case.overwrites or each.result not in live:
            continue
        if each.template in _ON_CONDITION:
            continue
        found[each.kind] += 1
        if each.least:
            found[each.least] += 1
    return found


# Operators that pass int8 on are planned if int8 comes in; a product of equal factors is a square.
_ON_CONDITION = ("max_pool2d", "avg_pool2d", "cat", "flatten", "mul", "matmul")


class _Checking:
    """One case on its way through the pipelines."""

    def __init__(self, case: Case, backend: Backend) -> None:
        self.faults: list[Fault] = []
        self._case = case
        self._backend = backend.with_config(case.config)
        self._model = case.model()
        self._inputs = case.inputs()
        self._state = {k: v.clone() for k, v in self._model.state_dict().items()}
        self._float = self._run(self._model, self._inputs)

    def note(self, check: str, detail: str) -> None:
        """Add a fault."""
        self.faults.append(Fault(self._case.seed, check, detail))

    def run(self, *, saves: bool, compiles: Mapping[str, Any] | None) -> None:
        """Do everything."""
        case, backend = self._case, self._backend
        graph = capture(
            self._model,
            self._inputs,
            dynamic_shapes=case.dynamic_shapes,
            check_inputs=case.free,  # export makes some sizes fixed all the same
            compare=False,
        )
        self._equals_float("captured", self._run(graph, self._inputs))
        self._meta("captured", graph)
        prepared = backend.prepare(graph, strict=False, instruments=[_AfterEach(self)])
        self._plans(prepared)
        calibrate(prepared, case.batches(), input_fn=lambda batch: batch, progress=False)
        for line in wrong_ranges(prepared):
            self.note("ranges", line)
        quantized = backend.convert(prepared)
        self._equals_float("prepared", self._run(prepared, self._inputs))  # it observes that, too
        inputs = ExampleInputs(self._inputs, {}, case.dynamic_shapes)
        result = make_result(graph, quantized, backend, inputs, strict=True)
        self._meta("quantized", quantized)
        if "observe-channels" not in backend.prepare_pipeline.names:  # then weights take up scales
            for line in wrong_weights(prepared, quantized):
                self.note("weights", line)
        lowered = self._run(result.module, self._inputs)
        self._noise(graph, result, lowered)
        self._kernels(result)
        if saves:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "case.quantfx"
                result.save(path)
                loaded = quantfx.load(path, backend=result.backend)
            self._same("loaded", loaded.module, lowered)
            if loaded.report.sites != result.report.sites:
                self.note("loaded", "the report says other things")
        if compiles is not None:
            self._compiles(result, compiles)
        self._other_sizes(result, lowered)
        self._unchanged()

    def shared(self, module: GraphModule) -> None:
        """Check the final annotations against the templates and ties."""
        for line in wrong_plans(module, self._backend.recipe.patterns):
            self.note("planned", line)
        for line in wrong_groups(module):
            self.note("shared", line)

    def keeps_float(self, name: str, module: GraphModule) -> None:
        """Compare the graph after a pass with the model."""
        self._equals_float(name, self._run(module, self._inputs))

    def _run(self, module: Callable[..., Any], inputs: tuple[Tensor, ...]) -> list[Tensor]:
        with torch.no_grad():
            made = module(*(each.clone() for each in inputs))
        return [leaf for leaf in leaves_in(made) if isinstance(leaf, Tensor)]

    def _equals_float(self, stage: str, made: list[Tensor]) -> None:
        for index, (one, other) in enumerate(zip(self._float, made, strict=True)):
            if one.shape != other.shape or one.dtype != other.dtype:
                self.note(f"{stage} differs", f"output {index}: {other.shape}, not {one.shape}")
                continue
            off = float((one.double() - other.double()).abs().max())
            if not off <= FLOAT * max(float(one.abs().max()), 1e-2):
                self.note(f"{stage} differs", f"output {index} is off by {off:.2e}")

    def _meta(self, stage: str, module: GraphModule) -> None:
        for line in wrong_meta(module, self._inputs):
            self.note(f"meta of {stage}", line)

    def _plans(self, prepared: GraphModule) -> None:
        """Compare the plan with the planted matches."""
        planned: list[str] = []
        for match in planned_matches(prepared):
            planned += {match.annotation.kind, match.annotation.template}
        for name, count in expected(self._case).items():
            times = len(fnmatch.filter(planned, name))
            if times < count:
                self.note("planned", f"{name} is planned {times} times, not {count}")

    def _noise(self, graph: GraphModule, result: Result, made: list[Tensor]) -> None:
        """Compare the noise of q/dq and lowered graphs with the cost of rounding."""
        config, patterns = self._case.config, self._backend.recipe.patterns
        of_4_bits = "weight-only-4bit"
        allowed = noise_power(
            graph,
            self._inputs,
            patterns,
            weight_steps=7 if config.default == of_4_bits else 63,
            table_steps=7.5 if of_4_bits in str(config) else 127.5,
        )
        rounded = self._run(result.quantized, self._inputs)
        for index, (one, q, low) in enumerate(zip(self._float, rounded, made, strict=True)):
            floor = one.numel() * (1e-3 * max(float(one.double().abs().max()), 1e-2)) ** 2
            most = NOISE * allowed[index] + floor
            for stage, exact, found in (("quantized", one, q), ("lowered", q, low)):
                if found.shape != exact.shape or found.dtype != exact.dtype:
                    self.note(f"noise of {stage}", f"output {index}: {found.shape} {found.dtype}")
                elif not power(exact, found) <= most:
                    parts = f"{power(exact, found):.2e} where rounding costs {allowed[index]:.2e}"
                    self.note(f"noise of {stage}", f"output {index}: {parts}")

    def _kernels(self, result: Result) -> None:
        """Check that every planned site has its promised kernel, and that kernels are right."""
        for site in result.report.sites:
            if not site.converted or site.status in ("planned", "missed"):
                self.note("contract", f"{site.site} is {site.status}: {site.reason}")
        for each in result.compare_sites(*self._inputs):
            if not each.within(STEPS, ERROR):
                self.note("kernel", str(each))

    def _compiles(self, result: Result, given: Mapping[str, Any]) -> None:
        """Check that the backend of torch.compile equals quantize bit for bit."""
        backend = self._backend
        state = quantfx.CompileState()
        data = quantfx.Batches(self._case.batches())
        options: Any = {
            **given,
            "calibration": data,
            "input_fn": _as_it_is,
            "config": self._case.config,
            "state": state,
        }
        torch.compiler.reset()
        fast = torch.compile(self._model, backend=f"quantfx_{backend.name}", options=options)
        expected = result.module if backend.eager else result.compile()
        self._same("torch.compile", fast, self._run(expected, self._inputs))

    def _same(self, check: str, made: Callable[..., Any], expected: list[Tensor]) -> None:
        pairs = zip(self._run(made, self._inputs), expected, strict=True)
        for index, (one, other) in enumerate(pairs):
            if not torch.equal(one, other):
                self.note(check, f"output {index} differs")

    def _other_sizes(self, result: Result, before: list[Tensor]) -> None:
        """Check that, with a free size, other numbers of rows are computed right or refused."""
        if not self._case.free:
            return
        more = tuple(torch.cat([each, each[:1]]) for each in self._inputs)
        try:
            wanted = self._run(self._model, more)
        except RuntimeError:  # the model itself takes no other sizes
            return
        try:
            made = self._run(result.module, more)
        except QuantfxError:
            return
        for index, (one, other) in enumerate(zip(wanted, made, strict=True)):
            if one.shape != other.shape:
                self.note("other sizes", f"{tuple(other.shape)}, not {tuple(one.shape)}")
            elif _noise(one, other) > MORE * _noise(self._float[index], before[index]) + LEAST:
                self.note("other sizes", f"output {index} is further from float than it was")

    def _unchanged(self) -> None:
        state = self._model.state_dict()
        if any(not torch.equal(state[name], value) for name, value in self._state.items()):
            self.note("unchanged", "the model's state is another")
        if not all(map(torch.equal, self._run(self._model, self._inputs), self._float)):
            self.note("unchanged", "the model computes something else")


class _AfterEach(Instrument):
    """Compares the graph with the model after every pass that keeps the function, until observers.

    It also checks plans against templates, and sharing groups against ties.
    """

    def __init__(self, checking: _Checking) -> None:
        self._checking = checking
        self._observed = False

    def after(self, position: int, each: Pass, module: GraphModule, record: PassRecord) -> None:
        """Run the graph after a pass that changed it."""
        if each.name == "share":
            self._checking.shared(module)
        self._observed |= each.name == "insert-observers"
        if (
            record.changed
            and each.keeps_float
            and not self._observed
            and record.name[:8] != "annotate"
        ):
            module.recompile()
            self._checking.keeps_float(each.name, module)


def _as_it_is(batch: Any) -> Any:
    return batch


def _noise(exact: Tensor, found: Tensor) -> float:
    """Return the share of noise in the power of ``found``; 0 for integers."""
    if not exact.is_floating_point() or not exact.numel():
        return 0.0
    signal = float(exact.double().square().sum())
    return float((found.double() - exact.double()).square().sum()) / signal if signal else 0.0
