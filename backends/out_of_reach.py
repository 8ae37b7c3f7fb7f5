"""Kernels that generated C++ cannot call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from quantfx.passes.graph.editor import Editor
from quantfx.passes.pipeline.kernel_family import Candidate, Emission, KernelFamily


@dataclass(frozen=True)
class OutOfReach(KernelFamily):
    """Stands last for families whose calls need Python: says so of what no other family takes.

    Attributes:
        families: The families that are left out.
    """

    name: ClassVar[str] = "out_of_reach"

    families: tuple[KernelFamily, ...]

    def takes(self, candidate: Candidate) -> bool:
        """Whether one of the families would take it."""
        return any(each.takes(candidate) for each in self.families)

    def refuses(self, candidate: Candidate, editor: Editor) -> str:
        """Return what to use instead, or why none of the families takes it either."""
        family = next(each for each in self.families if each.takes(candidate))
        if reason := family.refuses(candidate, editor):
            return reason
        kernel = candidate.kernel or candidate.reach
        return f"only Python can call {kernel}, generated C++ cannot: use wrapper='python'"

    def emit(self, candidate: Candidate, editor: Editor) -> Emission:
        """Fail: every candidate is refused."""
        raise AssertionError(f"{candidate.anchor.name} was refused")
