"""The state of a model in ``torch.compile``: its graphs, and what was observed in them."""

from __future__ import annotations

import warnings
import weakref
from collections import deque
from collections.abc import Generator, MutableMapping, MutableSequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import RLock
from types import CodeType
from typing import Any

from torch import nn
from torch.fx import GraphModule

from quantfx.backends.backend import Backend
from quantfx.backends.inductor.compile_attempts import Attempt
from quantfx.backends.inductor.recompile_limit import explain_limit
from quantfx.backends.inductor.torch_internals import ReachedLimit
from quantfx.dynamo.bound_weights import BoundWeights, release_weights
from quantfx.dynamo.calibration import Calibration
from quantfx.dynamo.compile_report import CompileReport, GraphRecord
from quantfx.dynamo.frame_graph import FrameGraph
from quantfx.dynamo.online_graph import Int8, OnlineGraph
from quantfx.patterns.errors import QuantfxError, QuantfxWarning


@dataclass
class _Told:
    code: CodeType
    owner: weakref.ref[nn.Module] | None
    graphs: weakref.WeakSet[Any] | None  # None: there were none


@dataclass
class ToldLimits:
    """Reported limits, so that none is reported at every call.

    A limit is news for another function, object or set of graphs.

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


@dataclass(eq=False)
class CompileState:
    """The state of a model in ``torch.compile``; pass one as option ``state`` to inspect it.

    A state is equal only to itself, because ``torch.compile`` compares options. Without a state,
    backends keep observations for as long as compiled code uses them.

    Attributes:
        records: Accounts of every graph so far, and of functions with graphs that Dynamo
            nevertheless runs in Python.
        is_partly_float: Whether some calls, or parts of them, run in Python, in float.
    """

    records: MutableSequence[GraphRecord] = field(default_factory=list[GraphRecord])
    is_partly_float: bool = False
    _told: ToldLimits = field(default_factory=ToldLimits)
    _calibrations: MutableMapping[Calibration, None] = field(
        default_factory=dict[Calibration, None]
    )
    _graphs: weakref.WeakSet[OnlineGraph] = field(default_factory=weakref.WeakSet[OnlineGraph])
    _float: MutableSequence[BoundWeights] = field(default_factory=list[BoundWeights])
    _lock: RLock = field(default_factory=RLock)

    @property
    def report(self) -> CompileReport:
        """The account of every graph."""
        return CompileReport(tuple(self.records))

    @property
    def calibrations(self) -> tuple[Calibration, ...]:
        """The calibrations, graph by graph."""
        return tuple(self._calibrations)

    def record(self, where: str, reason: str = "") -> GraphRecord:
        """Return a new record, with the reason if it stays float."""
        record = GraphRecord(where, "float" if reason else "observing", reason=reason)
        self.records.append(record)
        return record

    def add_graph(self, graph: OnlineGraph) -> None:
        """Note a graph that is int8 or will be."""
        self._graphs.add(graph)

    def add_float(self, weights: BoundWeights) -> None:
        """Note the tensors that a float graph reads."""
        self._float.append(weights)

    def note_limit(self, attempt: Attempt, advice: str = "") -> None:
        """Report, once for each cause, that Dynamo compiles no more of a function.

        Args:
            attempt: The attempt to compile that Dynamo refuses.
            advice: Further advice for the message.

        Raises:
            QuantfxError: the user asked for an error if something is not compiled.
        """
        if attempt.limit is None:
            return
        message = explain_limit(attempt, attempt.limit, "run in Python, in float") + advice
        if attempt.is_strict:
            raise QuantfxError(message, rule="recompile-limit", site=attempt.where)
        with self._lock:
            if not self._told.is_news(attempt, attempt.limit):
                return
            self.is_partly_float = True
        warning = QuantfxWarning(message, rule="recompile-limit", site=attempt.where)
        self.note_python(attempt.where, warning)

    def note_python(self, where: str, warning: QuantfxWarning) -> None:
        """Report that something runs in Python, in float, that seems to run in int8.

        Args:
            where: What runs in Python.
            warning: What happened, why, and what to do.
        """
        self.record(where, str(warning))
        warnings.warn(warning, stacklevel=4)

    def start_again(self) -> None:
        """Forget the graphs, which are about to be made anew, but keep the observations."""
        with self._lock:
            for graph in list(self._graphs):
                graph.stop()
            self._graphs.clear()
            self._float.clear()
            self.records.clear()
            self.is_partly_float = False
            self._told = ToldLimits()

    def release_float_weights(self) -> int:
        """Free the memory of float weights that no graph reads any more; return the bytes.

        This cannot be undone: afterwards the model cannot compute in float, be saved or be
        converted again, and it refuses inputs of a form that it was not compiled for. So call it
        once every kind of input was seen. The model must not read these weights outside of compiled
        graphs: reading one raises torch's error about storage without data.

        Raises:
            QuantfxError: a graph is still observed, or none is int8.
        """
        with self._lock:
            states = [(each.where, each.state) for each in self._graphs]
            waiting = [where for where, state in states if not isinstance(state, Int8)]
            int8 = [state for _, state in states if isinstance(state, Int8)]
            if waiting or not int8:
                what = f"{waiting[0]} is still observed" if waiting else "no graph is int8"
                raise QuantfxError(
                    f"float weights cannot be released: {what}.",
                    rule="not-all-int8",
                    site=waiting[0] if waiting else None,
                    fix="call the model until its report says int8",
                )
            needed = {address for each in int8 for address in each.storages}
            for weights in self._float:
                needed |= {t.untyped_storage().data_ptr() for t in weights.living}
            return release_weights([graph.weights for graph in self._graphs], needed)

    def calibration(
        self, backend: Backend, captured: FrameGraph, prepared: GraphModule
    ) -> tuple[Calibration, bool]:
        """Return the calibration of a graph, and whether it already existed.

        Args:
            backend: The backend that prepared it.
            captured: The graph.
            prepared: The graph with observers; gets existing observers.
        """
        tensors = [tensor for _, tensor in captured.weights.tensors]
        inputs = [each.source for each in captured.sources]
        with self._lock:
            for known in self._calibrations:
                same = known.code is captured.code and known.weights.same_tensors(tensors)
                if same and known.backend == backend and known.share(prepared, inputs):
                    return known, True
            weights = captured.weights.copy()
            made = Calibration(backend, captured.code, weights, prepared, inputs)
            self._calibrations[made] = None
            return made, False

    @contextmanager
    def unless_it_fails(self, calibration: Calibration) -> Generator[None]:
        """Forget ``calibration`` if the block raises, as its observations are incomplete."""
        try:
            yield
        except BaseException:
            with self._lock:
                del self._calibrations[calibration]
            raise


def shared_state() -> CompileState:
    """Return the state that all models compiled without one share; it keeps nothing alive."""
    return CompileState(
        records=deque(maxlen=0),  # nobody can ask for its records or release its weights
        _calibrations=weakref.WeakKeyDictionary(),
        _float=deque(maxlen=0),
    )
