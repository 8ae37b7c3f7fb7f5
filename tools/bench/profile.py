"""Watch a compiled module with torch's profiler and with oneDNN's verbose mode."""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from quantfx.patterns.errors import QuantfxError
from quantfx.tools.bench.breakdown import OperatorCall, Repeat
from quantfx.tools.bench.onednn_verbose import parse_verbose

# Namespaces of the operators that hold int8 kernels; `mkldnn::` holds the float ones.
_INT8 = ("onednn::", "quantfx::")


_STDOUT = 1


def watch(call: Callable[[], object]) -> Repeat:
    """Measure three runs of ``call``: unwatched, profiled, and profiled while oneDNN prints.

    ``ONEDNN_VERBOSE_TIMESTAMP=1`` must be in the environment before oneDNN's first use.

    Raises:
        QuantfxError: the call reaches no int8 operator that the profiler sees.
    """
    call()  # do not measure what the last profile left in the caches
    start = time.perf_counter()
    call()
    whole = (time.perf_counter() - start) * 1e3
    calls = _profile(call)
    if not calls:
        raise QuantfxError(
            "nothing to break down: the profiler sees no int8 operator", rule="no-int8"
        )
    with captured_stdout() as printed, _onednn_printing():
        watched = _profile(call)
    return Repeat(whole, calls, watched, parse_verbose(printed.text))


def _onednn_printing() -> AbstractContextManager[object]:
    mkldnn: Any = torch.backends.mkldnn  # torch gives these no types
    context: AbstractContextManager[object] = mkldnn.verbose(mkldnn.VERBOSE_ON)
    return context


def _profile(call: Callable[[], object]) -> tuple[OperatorCall, ...]:
    call()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        call()
    kineto = profiler.profiler
    assert kineto is not None
    assert kineto.kineto_results is not None
    # Nanoseconds since 1970, the clock that oneDNN's timestamps are of; events count from there.
    zero = kineto.kineto_results.trace_start_ns() / 1e6
    events = [event for event in profiler.events() or () if event.name.startswith(_INT8)]
    spans = sorted((event.time_range.start, event.time_range.end, event.name) for event in events)
    return tuple(
        OperatorCall(name.partition("::")[2], zero + start / 1e3, (end - start) / 1e3)
        for start, end, name in spans
    )


@dataclass
class Captured:
    """The captured text, available after the block."""

    text: str = ""


@contextmanager
def captured_stdout() -> Generator[Captured, None, None]:
    """Capture the standard output of the block, from C as well as from Python."""
    captured = Captured()
    _flush()
    kept = os.dup(_STDOUT)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), _STDOUT)
        try:
            yield captured
        finally:
            _flush()
            os.dup2(kept, _STDOUT)
            os.close(kept)
            file.seek(0)
            captured.text = file.read().decode(errors="replace")


def _flush() -> None:
    sys.stdout.flush()
    ctypes.CDLL(None).fflush(None)  # C has its own buffers
