"""The limits of Dynamo that were reported, so that none is reported at every call."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from types import CodeType
from typing import Any

from torch import nn

from quantfx.backends.inductor.compile_attempts import Attempt
from quantfx.backends.inductor.torch_internals import ReachedLimit


@dataclass
class _Told:
    code: CodeType
    owner: weakref.ref[nn.Module] | None
    graphs: weakref.WeakSet[Any] | None  # None: there were none


@dataclass
class ToldLimits:
    """Reported limits: a limit is news for another function, object or set of graphs.

    ``torch.compiler.reset()`` throws graphs away, so that a limit can be reached again. This memory
    keeps neither models nor graphs alive.
    """

    _told: list[_Told] = field(default_factory=list[_Told])

    def is_news(self, attempt: Attempt, limit: ReachedLimit) -> bool:
        """Whether this was not reported yet; from now on it counts as reported."""
        self._told = [each for each in self._told if each.graphs is None or each.graphs]
        if any(self._is_same(each, attempt, limit) for each in self._told):
            return False
        owner = None if attempt.owner is None else weakref.ref(attempt.owner)
        graphs = weakref.WeakSet[Any](limit.graphs) if limit.graphs else None
        self._told.append(_Told(attempt.code, owner, graphs))
        return True

    @staticmethod
    def _is_same(told: _Told, attempt: Attempt, limit: ReachedLimit) -> bool:
        owner = None if told.owner is None else told.owner()
        if told.code is not attempt.code or owner is not attempt.owner:
            return False
        return told.graphs is None or any(graph in told.graphs for graph in limit.graphs)
