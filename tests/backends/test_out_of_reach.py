"""What is said where generated C++ cannot call the family that has the kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar
from unittest.mock import create_autospec

import pytest

from quantfx.backends.out_of_reach import OutOfReach
from quantfx.passes.graph.editor import Editor
from quantfx.passes.pipeline.kernel_family import Candidate, Emission, KernelFamily


@dataclass(frozen=True)
class Family(KernelFamily):
    name: ClassVar[str] = "family"
    kernels: ClassVar[frozenset[str]] = frozenset({"kernel"})

    reason: str | None = None

    def refuses(self, candidate: Candidate, editor: Editor) -> str | None:
        return self.reason

    def emit(self, candidate: Candidate, editor: Editor) -> Emission:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("reason", "said"),
    [(None, "only Python can call kernel"), ("it has zero points", "it has zero points")],
)
def test_python_is_advised_only_where_it_would_help(reason: str | None, said: str) -> None:
    candidate, editor = create_autospec(Candidate), create_autospec(Editor)
    candidate.kernel = "kernel"
    family = OutOfReach((Family(reason=reason),))
    assert family.takes(candidate)
    assert said in str(family.refuses(candidate, editor))
    candidate.kernel = "another"
    assert not family.takes(candidate)
