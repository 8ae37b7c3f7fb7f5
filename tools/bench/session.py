"""One engine and one workload in one process: built once, then timed turn by turn."""

from __future__ import annotations

import gc
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch

from quantfx.backends.inductor.kernel_call import KernelCall
from quantfx.tools.bench.accuracy import Accuracy, compare_outputs
from quantfx.tools.bench.breakdown import Breakdown, break_down
from quantfx.tools.bench.engine import Engine, EngineError, EngineUnavailable, Run
from quantfx.tools.bench.plan_steps import with_steps
from quantfx.tools.bench.profile import watch
from quantfx.tools.bench.workload import Workload


@dataclass(frozen=True)
class Built:
    """The cost of building an engine, and its accuracy.

    Attributes:
        seconds: Time to import, quantize, compile and run the first call.
        accuracy: Accuracy on the workload's test batches.
    """

    seconds: float
    accuracy: Accuracy


class Worker(Protocol):
    """An engine that takes turns with others."""

    def build(self) -> Built:
        """Make the engine ready; call this first."""
        ...

    def turn(self, calls: int) -> float:
        """Run ``calls`` calls and return their seconds."""
        ...

    def breakdown(self, repeats: int) -> Breakdown:
        """Break down the time of a call."""
        ...

    def peak_bytes(self) -> int:
        """Return the peak memory of the process, including building."""
        ...

    def close(self) -> None:
        """End the worker; may be called again."""
        ...


class Session:
    """A worker in this process.

    Args:
        engine: The engine to run.
        workload: The workload that it runs.
        threads: Number of threads of torch, and of the engine if it has its own.
    """

    def __init__(self, engine: Engine, workload: Workload, threads: int) -> None:
        torch.set_num_threads(threads)
        self._engine = engine
        self._workload = workload
        self._threads = threads
        self._run: Run | None = None

    def build(self) -> Built:
        """Quantize, compile, run once; then compare with the float network.

        Raises:
            EngineUnavailable: a package is missing, or the CPU lacks what the engine needs.
            EngineError: anything else went wrong.
        """
        start = time.perf_counter()
        try:
            run = self._engine.build(self._workload, self._threads)
            run(*self._workload.example)
            seconds = time.perf_counter() - start
            with torch.no_grad():
                reference = [self._workload.model(*batch) for batch in self._workload.test]
            accuracy = compare_outputs(reference, [run(*batch) for batch in self._workload.test])
        except EngineError:
            raise
        except ModuleNotFoundError as error:
            raise EngineUnavailable(
                f"no package of module '{error.name}'",
                rule="missing-package",
                site=str(error.name),
                fix="pip install 'quantfx[bench]'",
            ) from error
        except Exception as error:  # foreign code: any error becomes a reason in the row
            raise EngineError(_reason(error), rule="foreign-code") from error
        self._run = run
        gc.collect()
        return Built(seconds, accuracy)

    def turn(self, calls: int) -> float:
        """Run ``calls`` calls after an untimed one.

        The untimed call refills the caches, which another engine has used.
        """
        run, example = self._built(), self._workload.example
        run(*example)
        start = time.perf_counter()
        for _ in range(calls):
            run(*example)
        return time.perf_counter() - start

    def breakdown(self, repeats: int) -> Breakdown:
        """Break down the time of a call, with medians over ``repeats``.

        Raises:
            QuantfxError: the engine runs no int8 operator that torch's profiler sees.
        """
        run, example = self._built(), self._workload.example
        kernels: Sequence[KernelCall] = getattr(run, "kernels", ())
        call = partial(run, *example)
        watch(call)  # the profiler's own first call is slow
        found = break_down([watch(call) for _ in range(repeats)], kernels)
        return with_steps(found, call, repeats)

    def peak_bytes(self) -> int:
        """Return the peak of the resident memory of this process, without its children."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024

    def close(self) -> None:
        """Forget the engine."""
        self._run = None

    def _built(self) -> Run:
        if self._run is None:
            raise EngineError("it was not built", rule="not-built")
        return self._run


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
