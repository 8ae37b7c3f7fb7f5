"""A program prepared for one set of shapes, and the calls that run it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from ctypes import CDLL, c_void_p

import torch
from torch import Tensor

from quantfx.backends.direct.runtime.arena import plan_arena, settle_sums
from quantfx.backends.direct.runtime.encode import Encoder
from quantfx.backends.direct.runtime.steps import Convolution, MatMul, Program
from quantfx.patterns.errors import QuantfxError

# Contexts that a plan keeps for later calls; more concurrent calls make more, which are freed.
CONTEXTS = 8


class Handle:
    """An object of the library: freed with this handle, and before its parent.

    Args:
        library: The runtime.
        address: Address of the object; None if the library made none.
        free: Frees the object.
        parent: The handle that it depends on.

    Raises:
        QuantfxError: the library made no object.
    """

    def __init__(
        self,
        library: CDLL,
        address: int | None,
        free: Callable[[int], object],
        parent: Handle | None = None,
    ) -> None:
        if not address:
            raise QuantfxError(
                f"the direct runtime could not be set up: {_error(library)}",
                rule="no-direct-runtime",
            )
        self.address = address
        self._free = free
        self._parent = parent

    def __del__(self) -> None:
        address = getattr(self, "address", None)
        if address is not None:
            self._free(address)


class Store:
    """The packed weights of one region, which its plans share.

    Attributes:
        library: The runtime.
        handle: Handle of the library's store.
        kept: Packed weights, which the library identifies by address.
    """

    def __init__(self, library: CDLL) -> None:
        self.library = library
        self.kept: dict[int, object] = {}
        self.handle = Handle(library, library.qfx_store_new(), library.qfx_store_free)


class Plan:
    """A program with its primitives made and its weights packed.

    Args:
        store: Store of the region.
        program: The steps to compute.
        threads: Number of threads that share the work.

    Raises:
        QuantfxError: oneDNN refuses a step; names the step and quotes oneDNN.
    """

    def __init__(self, store: Store, program: Program, threads: int) -> None:
        library = store.library
        self.program = program
        self._store = store
        self._library = library
        settle_sums(program)
        arena = plan_arena(program)
        self.arena_size = arena.size
        made = library.qfx_plan_new(store.handle.address, threads)
        self.handle = Handle(library, made, library.qfx_plan_free, store.handle)
        encoder = Encoder(arena)
        for step in program.steps:
            if isinstance(step, Convolution | MatMul) and (weight := step.constant) is not None:
                store.kept[weight.data_ptr()] = weight
            name, structure = encoder.encode(step)
            if getattr(library, f"qfx_{name}")(self.handle.address, ctypes.byref(structure)):
                at = f" ({step.output.name})" if step.output is not None else ""
                raise QuantfxError(
                    f"{step.kernel}{at} cannot be prepared: {_error(library)}",
                    rule="step-not-prepared",
                    site=None if step.output is None else step.output.name,
                    fix="quantize with kernels='onednn'",
                )
        self._outputs = [(each.shape, each.stride(), each.dtype) for each in program.outputs]
        self._idle: list[_Context] = []

    def names(self) -> list[str]:
        """Return the name of each step's kernel, e.g. ``jit_uni_int8:avx2``."""
        library = self._library
        count = library.qfx_step_count(self.handle.address)
        return [
            library.qfx_step_name(self.handle.address, index).decode() for index in range(count)
        ]

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Return the outputs for ``inputs``; several threads may call at once.

        Args:
            inputs: Tensors of the plan's shapes, strides and dtypes.
        """
        outputs = [
            torch.empty_strided(shape, stride, dtype=dtype)
            for shape, stride, dtype in self._outputs
        ]
        context = self._lease(len(inputs))
        context.point_at(inputs, outputs)
        if self._library.qfx_run(context.handle.address, context.inputs, context.outputs):
            raise _failed(self._library)
        self._give_back(context)
        return outputs

    def times(self, inputs: Sequence[Tensor], repeats: int = 5) -> list[float]:
        """Return the least time of each step in microseconds, for ``inputs`` as in ``run``."""
        return self._times(inputs, [(i, i + 1) for i in range(len(self.program.steps))], repeats)

    def whole_time(self, inputs: Sequence[Tensor]) -> float:
        """Return the time of all steps in one go in microseconds, without the call from Python."""
        return self._times(inputs, [(0, len(self.program.steps))], 1)[0]

    def _times(
        self, inputs: Sequence[Tensor], parts: Sequence[tuple[int, int]], repeats: int
    ) -> list[float]:
        outputs = self.run(inputs)
        context = self._lease(len(inputs))
        context.point_at(inputs, outputs)
        found = ctypes.c_double()
        times: list[float] = []
        for part in parts:
            arguments = (context.inputs, context.outputs, *part, repeats)
            if self._library.qfx_time(context.handle.address, *arguments, ctypes.byref(found)):
                raise _failed(self._library)
            times.append(found.value)
        self._give_back(context)
        return times

    def _lease(self, inputs: int) -> _Context:
        try:
            return self._idle.pop()
        except IndexError:
            return _Context(self, self._library, inputs, len(self._outputs))

    def _give_back(self, context: _Context) -> None:
        if len(self._idle) < CONTEXTS:
            self._idle.append(context)


class _Context:
    """The buffers and memory objects of one running call."""

    def __init__(self, plan: Plan, library: CDLL, inputs: int, outputs: int) -> None:
        made = library.qfx_context_new(plan.handle.address, plan.arena_size)
        self.handle = Handle(library, made, library.qfx_context_free, plan.handle)
        self.inputs = (c_void_p * max(inputs, 1))()
        self.outputs = (c_void_p * max(outputs, 1))()

    def point_at(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """Set the addresses of inputs and outputs."""
        for index, tensor in enumerate(inputs):
            self.inputs[index] = tensor.data_ptr()
        for index, tensor in enumerate(outputs):
            self.outputs[index] = tensor.data_ptr()


def _failed(library: CDLL) -> QuantfxError:
    return QuantfxError(f"the plan failed: {_error(library)}", rule="plan-failed")


def _error(library: CDLL) -> str:
    return (library.qfx_error() or b"").decode()
