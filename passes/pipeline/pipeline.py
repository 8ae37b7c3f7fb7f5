"""Pipelines: immutable sequences of passes, composed, printed, parsed and run as values."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias, cast

from torch.fx import GraphModule

from quantfx.passes.errors import PassError, PipelineError
from quantfx.passes.graph.clone import clone, recompile
from quantfx.passes.graph.facts import facts_of, set_facts
from quantfx.passes.graph.garbage import paused_garbage_collection
from quantfx.passes.graph.remark import ModelRemark
from quantfx.passes.graph.state import own_state
from quantfx.passes.pipeline import text as pipeline_text
from quantfx.passes.pipeline.base import Context, Pass, PassResult
from quantfx.passes.pipeline.check_pass import checked_result, require_pass
from quantfx.passes.pipeline.failed_run import FailedRun, is_reducible, keep_failed_run
from quantfx.passes.pipeline.instruments import Instrument
from quantfx.passes.pipeline.known_passes import own_passes
from quantfx.passes.pipeline.permits import LEFT_FLOAT, may
from quantfx.passes.pipeline.record import PassRecord, records_of, set_records
from quantfx.passes.pipeline.vanished import Snapshot, Vanished
from quantfx.passes.pipeline.verify import Fingerprint, fingerprint, verify_structure
from quantfx.patterns.errors import QuantfxError, unknown_name

_OFFER = "the smallest graph that shows this, as a file: quantfx.reduce(error, path='fault.py')"
# What no smaller graph shows: a pipeline alone does not reproduce what an instrument finds for its
# inputs, and what a pass returns is wrong on any graph.
_ANY = ("changed-function", "pass-result")

Element: TypeAlias = "Pass | Pipeline"


@dataclass(frozen=True)
class Pipeline:
    """Passes in order; an element may itself be a named pipeline.

    Attributes:
        elements: Passes and pipelines in order.
        name: Required to nest the pipeline in another; equal pipelines may differ in name.
    """

    elements: tuple[Element, ...]
    name: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        for element in self.elements:
            if not isinstance(element, Pipeline):
                require_pass(element)
            elif not element.name:
                fix = "write Pipeline(passes, name='...')"
                raise PipelineError("a nested pipeline needs a name", rule="nested-name", fix=fix)

    @property
    def passes(self) -> tuple[Pass, ...]:
        """Every pass in order, nested pipelines flattened."""
        return tuple(
            leaf
            for element in self.elements
            for leaf in (element.passes if isinstance(element, Pipeline) else (element,))
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The name of every pass in order."""
        return tuple(each.name for each in self.passes)

    def __iter__(self) -> Iterator[Pass]:
        return iter(self.passes)

    def __len__(self) -> int:
        return len(self.passes)

    def __add__(self, other: Pipeline) -> Pipeline:
        """Return this pipeline's elements followed by the other's."""
        return replace(self, elements=self.elements + other.elements)

    def before(self, name: str, *new: Element) -> Pipeline:
        """Return the pipeline with ``new`` inserted before the pass ``name``."""
        return self._edit(name, lambda found: (*new, found))

    def after(self, name: str, *new: Element) -> Pipeline:
        """Return the pipeline with ``new`` inserted after the pass ``name``."""
        return self._edit(name, lambda found: (found, *new))

    def replace(self, name: str, *new: Element) -> Pipeline:
        """Return the pipeline with ``new`` in place of the pass ``name``."""
        return self._edit(name, lambda _: new)

    def without(self, *names: str) -> Pipeline:
        """Return the pipeline without the named passes or nested pipelines."""
        result = self
        for name in names:
            result = result._edit(name, lambda _: ())
        return result

    def move(self, name: str, *, before: str | None = None, after: str | None = None) -> Pipeline:
        """Return the pipeline with the pass ``name`` moved before or after another."""
        if (before is None) == (after is None) or name in (before, after):
            message = "move takes either before= or after="
            raise PipelineError(message, rule="pass-place", fix="name the other pass in one")
        moved = self._find(name)
        rest = self.without(name)
        return (
            rest.before(before, moved)
            if before is not None
            else rest.after(cast(str, after), moved)
        )

    def upto(self, name: str) -> Pipeline:
        """Return the passes up to and including ``name``, flattened, to run it half-way."""
        self._find(name)
        passes = self.passes
        last = next((i for i, each in enumerate(passes) if each.name == name), None)
        if last is None:
            nested = cast(Pipeline, self._find(name)).passes
            if not nested:
                raise PipelineError(
                    f"'{name}' holds no passes to run up to", rule="no-passes", site=name
                )
            last = next(i for i, each in enumerate(passes) if each is nested[-1])
        return Pipeline(passes[: last + 1], self.name)

    def __str__(self) -> str:
        """Text form with options that differ from their defaults; ``parse`` reads it back."""
        return pipeline_text.format_elements(self.elements)

    @staticmethod
    def parse(text: str, passes: Sequence[type[Pass]] = ()) -> Pipeline:
        """Return the pipeline that ``text`` describes.

        Args:
            text: E.g. ``"fold-batch-norm, annotate-conv, insert-qdq"``; options in braces
                ``name{key=value}``, nested pipelines in parentheses ``name(a, b)``.
            passes: Pass classes known in addition to quantfx's own and its backends'.

        Raises:
            PipelineError: a name, option or value is unknown or misplaced; names the column.
        """
        return Pipeline(pipeline_text.parse_elements(text, passes, Pipeline))

    def fingerprint(self, context: Context | None = None) -> str:
        """Return a hash of every pass with all options, and of the recipe."""
        recipe = context.recipe.digest if context and context.recipe else ""
        text = "\n".join([repr(each) for each in self.passes] + [recipe])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def check(self, facts: frozenset[str] = frozenset()) -> None:
        """Raise a ``PipelineError`` unless every required fact holds where a pass requires it."""
        broken: dict[str, str] = {}
        for position, each in enumerate(self.passes, start=1):
            for fact in sorted(each.requires - facts):
                raise PipelineError(
                    f"{each.name} (pass {position} of {len(self)}) needs '{fact}': "
                    + self._why_missing(fact, broken, position),
                    rule="pass-order",
                    site=each.name,
                )
            broken |= dict.fromkeys(each.breaks & facts, each.name)
            facts = (facts - each.breaks) | each.provides

    def run(
        self,
        module: GraphModule,
        context: Context | None = None,
        *,
        instruments: Sequence[Instrument] = (),
    ) -> GraphModule:
        """Run every pass on a copy of ``module`` and return the copy.

        The copy is verified after each pass and compiled once at the end. Records of the passes are
        kept with it: see ``records_of``.

        Args:
            module: Not changed.
            context: The recipe that annotate passes need.
            instruments: Called around each pass.

        Raises:
            PipelineError: a required fact does not hold.
            PassError: a pass failed or left an invalid graph; ends with a reproducer. If the graph
                was as captured, a note says that ``quantfx.reduce`` takes the error; code cannot
                recreate notes and observers of earlier pipelines.
        """
        require_graph(module)
        self.check(facts_of(module))
        work = clone(module)
        own_state(work)
        try:
            self._rewrite(work, context or Context(), instruments)
        except QuantfxError as error:
            if isinstance(error, PassError) and error.rule not in _ANY and is_reducible(module):
                keep_failed_run(error, FailedRun(self, module, context))
                error.add_note(_OFFER)
            raise
        return work

    def run_in_place(self, module: GraphModule) -> None:
        """Do as ``run`` on ``module`` itself, which avoids a copy that nobody reads.

        Args:
            module: Not used elsewhere; invalid if a pass fails.

        Raises:
            PipelineError: as ``run``.
            PassError: as ``run``.
        """
        require_graph(module)
        self.check(facts_of(module))
        self._rewrite(module, Context())

    def _rewrite(
        self, module: GraphModule, context: Context, instruments: Sequence[Instrument] = ()
    ) -> None:
        nodes = Snapshot().next(module)
        run = _Run(self, context, instruments, fingerprint(module), nodes)
        with paused_garbage_collection():
            for position, each in enumerate(self.passes):
                run.step(position, each, module)
            recompile(module)

    def _why_missing(self, fact: str, broken: dict[str, str], position: int) -> str:
        if fact in broken:
            return f"{broken[fact]} before it breaks that"
        later = [each.name for each in self.passes[position:] if fact in each.provides]
        if later:
            return f"provided by {later[0]}, which comes later"
        providers = [name for c in own_passes() if fact in c.provides for name in c.names()]
        if providers:
            return f"provided by {' or '.join(providers)}, which has not run on this module"
        return "no pass provides it"

    def _find(self, name: str) -> Element:
        found: list[Element] = []

        def collect(element: Element) -> tuple[Element, ...]:
            found.append(element)
            return (element,)

        self._edit(name, collect)
        return found[0]

    def _edit(self, name: str, edit: Callable[[Element], tuple[Element, ...]]) -> Pipeline:
        known = _all_names(self)
        if name not in known:
            raise unknown_name(PipelineError, "pass", name, known, of="the pipeline")
        if known.count(name) > 1:
            message = f"pass '{name}' occurs {known.count(name)} times"
            fix = "name a pass that occurs once"
            raise PipelineError(message, rule="ambiguous-name", site=name, fix=fix)
        return _with_edit(self, name, edit)


def require_graph(module: GraphModule) -> None:
    """Refuse anything that is not a graph, whatever its annotated type.

    Raises:
        PipelineError: ``module`` is not a graph.
    """
    if not isinstance(module, GraphModule):
        message = f"a {type(module).__name__} is not a graph"
        raise PipelineError(message, rule="not-a-graph", fix="use capture(model, ...) first")


def _all_names(pipeline: Pipeline) -> list[str]:
    names: list[str] = []
    for element in pipeline.elements:
        names.append(element.name)
        if isinstance(element, Pipeline):
            names += _all_names(element)
    return names


def _with_edit(
    pipeline: Pipeline, name: str, edit: Callable[[Element], tuple[Element, ...]]
) -> Pipeline:
    elements: list[Element] = []
    for element in pipeline.elements:
        if element.name == name:
            elements += edit(element)
        elif isinstance(element, Pipeline):
            elements.append(_with_edit(element, name, edit))
        else:
            elements.append(element)
    return replace(pipeline, elements=tuple(elements))


@dataclass
class _Run:
    pipeline: Pipeline
    context: Context
    instruments: Sequence[Instrument]
    before: Fingerprint
    nodes: Snapshot

    def step(self, position: int, each: Pass, work: GraphModule) -> None:
        """Run one pass, verify its result and record what it did."""
        for instrument in self.instruments:
            instrument.before(position, each, work)
        start = time.perf_counter()
        try:
            result = self._result(each, work)
            seconds = time.perf_counter() - start
            before = self.before
            changed = self._verify(work)
            vanished = self._vanished(work) if self.before.structure != before.structure else ()
            record = PassRecord(
                each.name, seconds, changed, result.remarks, dict(result.stats), vanished
            )
            for instrument in self.instruments:
                instrument.after(position, each, work, record)
        except Exception as error:  # any pass, quantfx's or the user's, may raise anything
            if isinstance(error, QuantfxError) and not isinstance(error, PassError):
                error.add_note(self._reproducer(position))
                raise
            told = error if isinstance(error, PassError) else None
            raise PassError(
                f"{each.name} failed: {told.message if told else error}\n"
                + self._reproducer(position),
                rule=told.rule if told else "pass-failed",
                site=each.name,
                fix=told.fix if told else "",
            ) from error
        set_facts(work, (facts_of(work) - each.breaks) | each.provides)
        set_records(work, (*records_of(work), record))

    def _result(self, each: Pass, work: GraphModule) -> PassResult:
        if each.optional and not may(each.name):
            return PassResult((ModelRemark(f"{each.name}: {LEFT_FLOAT}"),))
        return checked_result(each.name, each.run(work, self.context))

    def _verify(self, work: GraphModule) -> bool:
        """Verify the module after a pass, and return whether it changed."""
        before, self.before = self.before, fingerprint(work)
        if self.before.structure != before.structure:
            verify_structure(work)
        return self.before != before

    def _vanished(self, work: GraphModule) -> tuple[Vanished, ...]:
        before, self.nodes = self.nodes, self.nodes.next(work)
        return tuple(before.vanished(self.nodes))

    def _reproducer(self, position: int) -> str:
        done = self.pipeline.passes[: position + 1]
        kinds = dict.fromkeys(type(each) for each in done)
        foreign = [kind.__name__ for kind in kinds if not kind.__module__.startswith("quantfx.")]
        named = f", passes=[{', '.join(foreign)}]" if foreign else ""
        return f"reproduce: Pipeline.parse({str(Pipeline(done))!r}{named}).run(module, context)"
