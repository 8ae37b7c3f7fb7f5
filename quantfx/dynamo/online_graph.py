"""A graph that computes in float while it is observed, and in int8 from then on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from quantfx.dynamo.calibration import Calibration, named
from quantfx.dynamo.compile_report import GraphRecord
from quantfx.dynamo.frame_graph import FrameGraph
from quantfx.dynamo.int8_graph import (
    QuantizedFrame,
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


class OnlineGraph:
    """What a backend returns to Dynamo in the place of a graph.

    Args:
        captured: The graph.
        prepared: The same with observers.
        calibration: Owner of the observers.
        record: Told what becomes of it.
        batches: Calls to observe before it becomes int8.
        strict: Raise where the contract does not hold.
        check_weights: Refuse calls after weights were written to.

    Attributes:
        where: Function and place of its frame.
        weights: The model's tensors that were made constants.
        storages: Addresses of the memory that the int8 code reads; None as long as it is float.
    """

    def __init__(
        self,
        captured: FrameGraph,
        prepared: GraphModule,
        calibration: Calibration,
        record: GraphRecord,
        *,
        batches: float,
        strict: bool,
        check_weights: bool,
    ) -> None:
        self.where = captured.where
        self._captured: FrameGraph | None = captured
        self._float: Callable[..., Any] | None = captured.run
        self._prepared: GraphModule | None = prepared
        self._calibration = calibration  # also keeps it, for graphs of other shapes
        self._record = record
        self._batches = batches
        self._strict = strict
        self._check_weights = check_weights
        self._int8: Callable[..., Any] | None = None
        self.weights = captured.weights
        self.storages: frozenset[int] | None = None  # float: all that it reads

    @property
    def is_ready(self) -> bool:
        """Whether it has seen enough calls to become int8."""
        return self._calibration.count >= self._batches or not self._calibration.needs_data

    def __call__(self, *args: Any) -> Any:
        """Compute the graph."""
        int8 = self._int8
        return self._first_calls(args) if int8 is None else int8(*args)

    def stop(self) -> None:
        """Give up what observing needs: from now on it only computes, in float."""
        with self._calibration.lock:
            self._captured = self._prepared = None

    def convert_here(self, inputs: Sequence[Any]) -> None:
        """Become int8 in a running ``torch.compile``.

        Args:
            inputs: As Dynamo hands them.
        """
        self._convert(inputs, compile_here)

    def _first_calls(self, args: tuple[Any, ...]) -> Any:
        compiles = self.is_ready
        # Dynamo, when it makes a graph that shares these observers, takes the locks in this order.
        with compile_lock() if compiles else nullcontext(), self._calibration.lock:
            captured, run, again = self._captured, self._float, False
            if captured is not None:
                self._follow_weights(captured)
                if not self.is_ready:
                    self._observe(captured, args)
                elif compiles:
                    self._convert(args, compile_later)
                else:
                    again = True  # another thread observed the last call
            run = self._int8 or run
        if again:
            return self._first_calls(args)
        assert run is not None, "float until it is int8"
        # Without gradients, as in int8: what comes behind must not see the difference. Outside of
        # the lock: computing needs none.
        with torch.no_grad():
            return run(*args)

    def _follow_weights(self, captured: FrameGraph) -> None:
        """Start anew if the weights were written to since they were read."""
        if not captured.weights.changed:
            return
        # What was captured reads the memory that the weights were in.
        captured.weights.require_same_memory(self.where)
        captured.weights.note()
        self._prepared = self._calibration.backend.prepare(captured.graph, strict=False)
        if not self._calibration.restart_if_stale(self._prepared, captured.where):
            self._calibration.share(self._prepared, [each.source for each in captured.sources])

    def _observe(self, captured: FrameGraph, args: tuple[Any, ...]) -> None:
        assert self._prepared is not None, "kept until it is int8"
        if torch.is_grad_enabled():
            inputs = [args[i] for i in captured.inputs]
            require_no_gradient(inputs, self.where, captured.outermost)
        given = [
            args[i].clone() if i in captured.written and isinstance(args[i], Tensor) else args[i]
            for i in captured.inputs
        ]
        call = f"call {self._calibration.count + 1} of calibration"
        with named(captured.names, given, call):
            self._calibration.observe(self._prepared, given)
        self._record.observed = self._calibration.count

    def _convert(self, args: Sequence[Any], compile_for: Callable[..., Callable[..., Any]]) -> None:
        captured, prepared = self._captured, self._prepared
        assert captured is not None, "it becomes int8 once"
        assert prepared is not None, "kept until it is int8"
        backend = self._calibration.backend
        with self._calibration.lock:
            frame = quantize_frame(captured, prepared, backend, strict=self._strict)
        if backend.eager:
            run = run_eagerly(frame, self._note)
        else:
            taken = [args[index] for index in captured.inputs]
            run = compile_for(frame, taken, self._note, strict=self._strict)
        self._become(captured, frame, run)

    def _become(self, captured: FrameGraph, frame: QuantizedFrame, run: Callable[..., Any]) -> None:
        weights = captured.weights if self._check_weights else None
        self._int8 = in_place_of(captured, run, weights)
        self.weights, self.storages = captured.weights, frame.storages
        # The float graph goes, and with it copies of weights.
        self._captured = self._prepared = self._float = None
        self._record.phase = "int8"
        self._record.observed = self._calibration.count

    def _note(self, report: Report) -> None:
        self._record.report = report
        rows = ", ".join(
            f"{row.label} {row.lowered if row.compiled is None else row.compiled}/{row.planned}"
            for row in report.rows
        )
        _LOG.info("%s is int8: %s", self._record.where, rows)
