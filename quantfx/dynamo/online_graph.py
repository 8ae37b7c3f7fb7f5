"""A graph that computes in float while it is observed, then in int8."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from quantfx.dynamo.calibration import Calibration, named
from quantfx.dynamo.compile_report import GraphRecord
from quantfx.dynamo.frame_graph import FrameGraph
from quantfx.dynamo.int8_graph import (
    compile_here,
    compile_later,
    in_place_of,
    quantize_frame,
    require_no_gradient,
    run_eagerly,
)
from quantfx.dynamo.internals import compile_lock
from quantfx.passes.report.report import Report

_LOG = logging.getLogger("quantfx")


@dataclass(frozen=True)
class Float:
    """The state of a graph that computes in float and is not observed.

    Attributes:
        run: Computes the graph.
    """

    run: Callable[..., Any]


@dataclass(frozen=True)
class Int8:
    """The state of a graph that computes in int8.

    Attributes:
        run: Computes the graph.
        storages: Addresses of the memory that the int8 code reads.
    """

    run: Callable[..., Any]
    storages: frozenset[int]


@dataclass(frozen=True)
class Observing:
    """The state of a graph that computes in float while its calls are observed.

    Attributes:
        captured: The graph.
        prepared: The captured graph with observers.
        calibration: Owner of the observers.
    """

    captured: FrameGraph
    prepared: GraphModule
    calibration: Calibration

    @property
    def run(self) -> Callable[..., Any]:
        """Dynamo's own graph."""
        return self.captured.run

    def with_weights_of_now(self) -> Observing:
        """Return a state for the current weights; ``self`` if they did not change."""
        captured, calibration = self.captured, self.calibration
        if not captured.weights.changed:
            return self
        # The captured graph reads the memory that the weights were in.
        captured.weights.require_same_memory(captured.where)
        captured.weights.note()
        prepared = calibration.backend.prepare(captured.graph, strict=False)
        if not calibration.restart_if_stale(prepared, captured.where):
            calibration.share(prepared, [each.source for each in captured.sources])
        return replace(self, prepared=prepared)

    def observe(self, args: Sequence[Any]) -> None:
        """Run a call through the observers.

        Args:
            args: The inputs of Dynamo's graph.
        """
        captured = self.captured
        if torch.is_grad_enabled():
            inputs = [args[i] for i in captured.inputs]
            require_no_gradient(inputs, captured.where, captured.outermost)
        given = [
            args[i].clone() if i in captured.written and isinstance(args[i], Tensor) else args[i]
            for i in captured.inputs
        ]
        call = f"call {self.calibration.count + 1} of calibration"
        with named(captured.names, given, call):
            self.calibration.observe(self.prepared, given)


class OnlineGraph:
    """The callable that a backend returns to Dynamo in place of a graph.

    Args:
        observing: The first state.
        record: The account to keep up to date.
        batches: Calls to observe before it becomes int8.
        strict: Raise where the contract does not hold.
        check_weights: Refuse calls after weights were written to.

    Attributes:
        where: Function and place of its frame.
        weights: The model's tensors that were made constants.
        state: The current state. The float graph and its copies of weights go with ``Observing``.
    """

    def __init__(
        self,
        observing: Observing,
        record: GraphRecord,
        *,
        batches: float,
        strict: bool,
        check_weights: bool,
    ) -> None:
        self.where = observing.captured.where
        self.weights = observing.captured.weights
        self.state: Observing | Int8 | Float = observing
        self._calibration = observing.calibration  # keeps it alive for graphs of other shapes
        self._record = record
        self._batches = batches
        self._strict = strict
        self._check_weights = check_weights

    @property
    def is_ready(self) -> bool:
        """Whether it has seen enough calls to become int8."""
        return self._calibration.count >= self._batches or not self._calibration.needs_data

    def __call__(self, *args: Any) -> Any:
        """Compute the graph."""
        state = self.state
        if isinstance(state, Int8):
            return state.run(*args)
        state = self._next(args)
        # Without gradients, as in int8: later operators must not see a difference. Outside of the
        # lock, which computing does not need.
        with torch.no_grad():
            return state.run(*args)

    def stop(self) -> None:
        """Stop observing: from now on only compute, in float."""
        with self._calibration.lock:
            if isinstance(self.state, Observing):
                self.state = Float(self.state.run)

    def convert_here(self, inputs: Sequence[Any]) -> None:
        """Become int8 in a running ``torch.compile``, if it is observed.

        Args:
            inputs: Inputs from Dynamo.
        """
        if isinstance(self.state, Observing):
            self.state = self._converted(self.state, inputs, compile_here)

    def _next(self, args: tuple[Any, ...]) -> Observing | Int8 | Float:
        """Observe a call, or become int8 for it; return the function that computes it."""
        while True:
            compiles = self.is_ready
            # Dynamo takes the locks in this order when it makes a graph that shares these
            # observers.
            with compile_lock() if compiles else nullcontext(), self._calibration.lock:
                if not isinstance(self.state, Observing):
                    return self.state
                self.state = self.state.with_weights_of_now()
                if not self.is_ready:
                    self.state.observe(args)
                    self._record.observed = self._calibration.count
                    return self.state
                if compiles:
                    self.state = self._converted(self.state, args, compile_later)
                    return self.state
            # Another thread observed the last call: convert, which needs the lock of compiles.

    def _converted(
        self,
        observing: Observing,
        args: Sequence[Any],
        compile_for: Callable[..., Callable[..., Any]],
    ) -> Int8:
        captured, backend = observing.captured, self._calibration.backend
        with self._calibration.lock:
            frame = quantize_frame(captured, observing.prepared, backend, strict=self._strict)
        if backend.eager:
            run = run_eagerly(frame, self._note)
        else:
            taken = [args[index] for index in captured.inputs]
            run = compile_for(frame, taken, self._note, strict=self._strict)
        self._record.phase = "int8"
        self._record.observed = self._calibration.count
        weights = captured.weights if self._check_weights else None
        return Int8(in_place_of(captured, run, weights), frame.storages)

    def _note(self, report: Report) -> None:
        self._record.report = report
        rows = ", ".join(
            f"{row.label} {row.lowered if row.compiled is None else row.compiled}/{row.planned}"
            for row in report.rows
        )
        _LOG.info("%s is int8: %s", self._record.where, rows)
