"""The input of Inductor: a lowered graph with opaque kernels, in each precision."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from torch.fx import GraphModule

from quantfx.backends.direct.call_operator import CallOperator
from quantfx.backends.inductor.opaque_kernels import HideKernels
from quantfx.passes.export.concrete_sizes import makes_sizes
from quantfx.passes.graph.checked_module import input_check
from quantfx.passes.graph.clone import clone, clone_as, recompile
from quantfx.passes.inputs.check import InputCheck
from quantfx.passes.inputs.contract import contract_of
from quantfx.passes.lower.expand_affine_weights import ExpandAffineWeights
from quantfx.passes.pipeline.pipeline import Pipeline

# Run on the lowered graph, before Inductor.
HIDE = Pipeline(
    (
        CallOperator(),
        HideKernels(),
        ExpandAffineWeights(),  # those that no kernel took: Inductor's own patterns would take them
    ),
    name="hide",
)


class LoweredPair:
    """The graphs to compile: one for float32, and one for autocast.

    Args:
        exact: The graph whose kernels return float results in float32.
        mixed: Makes the graph whose kernels return them in bfloat16; ``exact`` by default.
    """

    def __init__(self, exact: GraphModule, mixed: Callable[[], GraphModule] | None = None) -> None:
        self.exact = _uncheck(HIDE.run(exact))
        self._make_mixed = mixed

    @cached_property
    def mixed(self) -> GraphModule:
        """The graph for autocast."""
        return self.exact if self._make_mixed is None else _uncheck(HIDE.run(self._make_mixed()))

    @cached_property
    def check(self) -> InputCheck | None:
        """The check that refuses inputs that the graphs are not valid for."""
        contract = contract_of(self.exact)
        if contract is None or not contract.checked:
            return None
        return input_check(self.exact, contract)

    @cached_property
    def makes_sizes(self) -> bool:
        """Whether sizes in the graphs depend on data."""
        return makes_sizes(self.exact)

    def clone_tensors(self) -> LoweredPair:
        """Return copies of the graphs with their own tensors."""
        # The graph for autocast is copied from the original's, which has the original's tensors.
        copy = LoweredPair(_copy_unchecked(self.exact), lambda: _copy_unchecked(self.mixed))
        copy.exact.meta = self.exact.meta
        return copy

    def module(self, mixed: bool) -> GraphModule:
        """Return one of the two graphs."""
        return self.mixed if mixed else self.exact


def _copy_unchecked(module: GraphModule) -> GraphModule:
    """Return a plain copy with its own tensors."""
    return _uncheck(clone(module, "all", gradients=False))


def _uncheck(module: GraphModule) -> GraphModule:
    """Return the module without its checks: they run before compiled code."""
    plain = clone_as(module, GraphModule)
    recompile(plain)
    return plain
