"""The base of passes: an immutable value with a name, options as fields, and ``run``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from torch.fx import GraphModule

from quantfx.passes.config.recipe import Recipe
from quantfx.passes.errors import PipelineError
from quantfx.passes.graph.immutable import Immutable
from quantfx.passes.graph.remark import AnyRemark

if TYPE_CHECKING:
    from quantfx.passes.observers.statistics.sample import Leaves
    from quantfx.passes.observers.statistics.statistics import Statistics
    from quantfx.passes.pipeline.kernel_family import KernelFamily


@dataclass(frozen=True)
class PassResult:
    """A pass's report of what it did; the pipeline itself finds out whether the module changed.

    Attributes:
        remarks: For the report.
        stats: Counts of what was done.
    """

    remarks: tuple[AnyRemark, ...] = ()
    stats: Mapping[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True)
class Context:
    """What a pass may use besides the module.

    Attributes:
        recipe: The patterns and specs of the backend, None outside a backend.
        kernels: The kernel families of the backend, asked in order by the lowering pass.
        statistics: Statistics of the calibration data, if collected.
        sample: Some of the inputs that calibration saw, by call.
    """

    recipe: Recipe | None = None
    kernels: tuple[KernelFamily, ...] = ()
    statistics: Statistics | None = None
    sample: tuple[Leaves, ...] = ()

    def require_recipe(self, name: str) -> Recipe:
        """Return the recipe that the pass called ``name`` requires.

        Raises:
            PipelineError: there is none.
        """
        if self.recipe is None:
            fix = "run it with Context(recipe=...)"
            raise PipelineError(f"{name} needs a recipe", rule="no-recipe", site=name, fix=fix)
        return self.recipe

    def require_statistics(self, name: str) -> Statistics:
        """Return the statistics that the pass called ``name`` requires.

        Raises:
            PipelineError: there are none.
        """
        if self.statistics is None:
            fix = "collect them: backend.convert(prepared, statistics=quantfx.collect(...))"
            message = f"{name} needs statistics"
            raise PipelineError(message, rule="no-statistics", site=name, fix=fix)
        return self.statistics


@dataclass(frozen=True)
class Pass(Immutable, ABC):
    """A rewrite of a graph module, in place; a frozen dataclass.

    The graph lints before and after, not necessarily in between. Facts are words for properties of
    a module, e.g. ``annotated``.

    Attributes:
        name: Kebab case; how text forms and reports call the pass.
        requires: Facts that must hold before.
        provides: Facts that hold afterwards.
        breaks: Facts that no longer hold afterwards.
        keeps_float: Whether the pass claims to keep the float function; tested to 1e-5.
        optional: Whether later passes are correct without it, so that a bisection may omit it.
        needs_statistics: Whether it uses the statistics of the context; ``quantize`` then collects
            them from the batches it is given.
        named_by: The field whose value ends the name, as the group does in ``annotate-conv``.
    """

    name: ClassVar[str]
    requires: ClassVar[frozenset[str]] = frozenset()
    provides: ClassVar[frozenset[str]] = frozenset()
    breaks: ClassVar[frozenset[str]] = frozenset()
    keeps_float: ClassVar[bool] = True
    optional: ClassVar[bool] = False
    needs_statistics: ClassVar[bool] = False
    named_by: ClassVar[str] = ""

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the known names of passes of this class."""
        return (cls.name,)

    @property
    def wants_samples(self) -> int:
        """How many samples the pass uses if calibration kept them; then it needs no statistics."""
        return 0

    @abstractmethod
    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Rewrite ``module``, which belongs to the pipeline, in place."""
