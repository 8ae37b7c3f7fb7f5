"""The plans of one region, one for each set of input shapes, while its weights are unchanged."""

from __future__ import annotations

import contextlib
import os
from collections import OrderedDict
from collections.abc import Sequence
from operator import attrgetter
from threading import Lock
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from quantfx.backends.direct.rules.fuse_attention import fuse_attention
from quantfx.backends.direct.rules.operators import rules
from quantfx.backends.direct.rules.shapes import Untranslatable, shapes_of
from quantfx.backends.direct.rules.translate import Translation
from quantfx.backends.direct.runtime.library import runtime
from quantfx.backends.direct.runtime.plan import Plan, Store
from quantfx.backends.direct.runtime.steps import Accumulate, Program
from quantfx.backends.direct.runtime.values import layout_of
from quantfx.backends.direct.tuned import apply_choice, choices_for, signature
from quantfx.passes.graph.graphs import constants
from quantfx.patterns.errors import QuantfxError, warn

# Plans that a region keeps; the least recently used goes first.
PLANS = 64

Key = tuple[Any, ...]

_WRITES = attrgetter("_version")


def translate(
    graph: GraphModule,
    layouts: Sequence[Tensor],
    derived: dict[Key, Tensor] | None = None,
) -> Program:
    """Return the steps that compute ``graph`` for inputs of the given layouts.

    Args:
        graph: A q/dq graph of tensors.
        layouts: Tensors on device meta, one for each placeholder.
        derived: Weights that translations derive from others, kept by the caller.

    Raises:
        Untranslatable: no step computes some node.
    """
    shapes = shapes_of(graph, layouts)
    return Translation(graph, shapes, rules(), {} if derived is None else derived).run()


def new_store() -> Store:
    """Return a store for weights.

    Raises:
        QuantfxError: the runtime is not available.
    """
    found = runtime()
    if found.library is None:
        raise QuantfxError(
            f"the direct runtime is not available: {found.reason}",
            rule="no-direct-runtime",
            fix="lower with kernels='onednn'",
        )
    return Store(found.library)


class Plans:
    """The plans of a region, made as needed.

    Args:
        graph: Graph of the region.
    """

    def __init__(self, graph: GraphModule) -> None:
        self._graph = graph
        # Inference tensors count no writes; they are rarely written to.
        self._weights = tuple(x for _, x in constants(graph) if not x.is_inference())
        self._made_from = 0, 0
        self._plans: OrderedDict[Key, Plan | None] = OrderedDict()
        self._store: Store | None = None
        self._derived: dict[Key, Tensor] = {}
        self._lock = Lock()

    def get(self, inputs: Sequence[Tensor]) -> Plan | None:
        """Return the plan for inputs like these, made if needed; None if no plan can compute them.

        Raises:
            QuantfxError: the runtime is not available.
        """
        threads = torch.get_num_threads()
        key = (threads, *[(x.shape, x.stride(), x.dtype) for x in inputs])
        made_from = self._version()
        plan = self._plans.get(key)
        if plan is not None and self._made_from == made_from:
            with contextlib.suppress(KeyError):  # another thread may have dropped it
                self._plans.move_to_end(key)
            return plan
        with self._lock:
            if self._made_from != made_from:
                self._plans.clear()
                self._store, self._derived, self._made_from = None, {}, made_from
            if key not in self._plans:  # another thread made it in the meantime
                self._plans[key] = self._new_plan(inputs, threads)
            self._plans.move_to_end(key)
            if len(self._plans) > PLANS:
                self._plans.popitem(last=False)
            return self._plans[key]

    def _new_plan(self, inputs: Sequence[Tensor], threads: int) -> Plan | None:
        if self._store is None:
            self._store = new_store()
        try:
            return self._prepared(self._store, inputs, threads)
        except Untranslatable as error:
            site, reason = error.node.name, str(error)
        except QuantfxError as error:
            if error.rule != "step-not-prepared":
                raise
            site, reason = error.site or "", error.message
        shapes = ", ".join("x".join(map(str, x.shape)) for x in inputs)
        warn(
            f"a region runs in float for inputs of shape {shapes}: {reason}",
            rule="no-plan",
            site=site,
            fix="lower with kernels='onednn'",
            stacklevel=6,
        )
        return None

    def _prepared(self, store: Store, inputs: Sequence[Tensor], threads: int) -> Plan:
        program = translate(self._graph, [layout_of(x) for x in inputs], self._derived)
        fuse_attention(program)
        known = choices_for(threads)
        for step in program.steps:
            if isinstance(step, Accumulate) and (choice := known.get(signature(step))):
                apply_choice(step, choice)
        return Plan(store, program, threads)

    def _version(self) -> tuple[int, int]:
        """Return the process id and the number of writes to weights: plans are valid for both.

        A fork lacks the process's threads. Counts only grow, so their sum suffices; each call asks
        for it.
        """
        return os.getpid(), sum(map(_WRITES, self._weights))
