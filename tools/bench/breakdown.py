"""Where the milliseconds of one call are: in kernels, around them, and outside int8 operators."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from quantfx.patterns.errors import QuantfxError
from quantfx.tools.bench.onednn_verbose import Execution


class NamedKernel(Protocol):
    """What a compiled module says of a kernel that it calls."""

    @property
    def site(self) -> object:
        """The place in the q/dq graph; its text is that of the report."""
        ...

    @property
    def kernel(self) -> str:
        """The operator, with its overload if that is not the default."""
        ...


@dataclass(frozen=True)
class OperatorCall:
    """One call of an int8 operator, as the profiler saw it.

    Attributes:
        name: E.g. ``qconv_pointwise``.
        start: When, in milliseconds since 1970.
        milliseconds: How long, with all that it calls.
    """

    name: str
    start: float
    milliseconds: float


@dataclass(frozen=True)
class Repeat:
    """What one repetition measured, each of the three in a call of its own.

    Attributes:
        whole: Milliseconds of a call that nothing watches.
        calls: Int8 operators of a call under the profiler alone.
        watched: The same under the profiler and oneDNN's verbose mode, whose printing slows it.
        executions: What oneDNN printed in that last call.
    """

    whole: float
    calls: tuple[OperatorCall, ...]
    watched: tuple[OperatorCall, ...]
    executions: tuple[Execution, ...]


@dataclass(frozen=True)
class SiteTime:
    """One int8 operator; milliseconds are medians over the repetitions.

    Attributes:
        site: The node, or a number and oneDNN's shapes where the module does not tell.
        kernel: The operator.
        kernel_ms: Inside oneDNN's primitives that compute.
        overhead_ms: Inside the operator, outside of kernels, reorders and loops.
        loop_ms: Inside oneDNN's reorders, and the loops of prepared plans.
    """

    site: str
    kernel: str
    kernel_ms: float
    overhead_ms: float
    loop_ms: float = 0.0


@dataclass(frozen=True)
class Breakdown:
    """Kernels, loops, overhead and rest sum up to the whole.

    Attributes:
        sites: In the order of execution.
        whole_ms: Median of a call that nothing watched.
    """

    sites: tuple[SiteTime, ...]
    whole_ms: float

    @property
    def kernel_ms(self) -> float:
        """Inside oneDNN's primitives of all sites that compute."""
        return sum(site.kernel_ms for site in self.sites)

    @property
    def loop_ms(self) -> float:
        """Inside reorders and loops of all sites."""
        return sum(site.loop_ms for site in self.sites)

    @property
    def overhead_ms(self) -> float:
        """Around them, inside the operators of all sites."""
        return sum(site.overhead_ms for site in self.sites)

    @property
    def rest_ms(self) -> float:
        """Outside int8 operators: float operators, generated loops, the calls from Python."""
        return self.whole_ms - self.kernel_ms - self.loop_ms - self.overhead_ms


def break_down(repeats: Sequence[Repeat], kernels: Sequence[NamedKernel] = ()) -> Breakdown:
    """Attribute every execution to the operator during which it started.

    Args:
        repeats: At least one.
        kernels: What the module says of its kernels, in order; used if that fits the calls.

    Raises:
        QuantfxError: the calls of two repetitions are not the same.
    """
    names = [call.name for call in repeats[0].calls]
    for repeat in repeats:
        for calls in (repeat.calls, repeat.watched):
            if [call.name for call in calls] != names:
                raise QuantfxError(
                    f"the int8 operators of two calls differ: {len(names)} and {len(calls)}; does "
                    "the model branch at random?",
                    rule="other-operators",
                )
    inside = [[_during(call, repeat.executions) for call in repeat.watched] for repeat in repeats]
    sites = tuple(
        _site(index, [(repeat, row[index]) for repeat, row in zip(repeats, inside, strict=True)])
        for index in range(len(names))
    )
    whole = statistics.median(repeat.whole for repeat in repeats)
    if [_operator(named) for named in kernels] != names:
        return Breakdown(sites, whole)
    named_sites = tuple(
        replace(site, site=str(named.site), kernel=named.kernel)
        for named, site in zip(kernels, sites, strict=True)
    )
    return Breakdown(named_sites, whole)


def _operator(named: NamedKernel) -> str:
    return named.kernel.partition(".")[0]  # the profiler knows no overloads


def _during(call: OperatorCall, executions: Sequence[Execution]) -> list[Execution]:
    end = call.start + call.milliseconds
    return [execution for execution in executions if call.start <= execution.start < end]


def _site(index: int, seen: Sequence[tuple[Repeat, list[Execution]]]) -> SiteTime:
    in_kernel, in_reorders = (
        statistics.median(
            sum(each.milliseconds for each in inside if (each.kind == "reorder") is reorders)
            for _, inside in seen
        )
        for reorders in (False, True)
    )
    in_operator = statistics.median(repeat.calls[index].milliseconds for repeat, _ in seen)
    # The longest is the kernel; others, if any, reorder what it reads.
    longest = max(seen[0][1], key=lambda execution: execution.milliseconds, default=None)
    shapes = f" {longest.problem}" if longest else ""
    overhead = in_operator - in_kernel - in_reorders
    name = seen[0][0].calls[index].name
    return SiteTime(f"#{index}{shapes}", name, in_kernel, overhead, in_reorders)
