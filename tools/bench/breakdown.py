"""Break down the time of one call: in kernels, around them, and outside int8 operators."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from quantfx.backends.inductor.kernel_call import KernelCall
from quantfx.patterns.errors import QuantfxError
from quantfx.tools.bench.onednn_verbose import Execution


@dataclass(frozen=True)
class OperatorCall:
    """One call of an int8 operator in the profile.

    Attributes:
        name: E.g. ``qconv_pointwise``.
        start: Start in milliseconds since 1970.
        milliseconds: Duration including inner calls.
    """

    name: str
    start: float
    milliseconds: float


@dataclass(frozen=True)
class Repeat:
    """The measurements of one repetition, each of three calls by itself.

    Attributes:
        whole: Milliseconds of an unwatched call.
        calls: int8 operators of a call under the profiler alone.
        watched: The same under the profiler and oneDNN's verbose mode, whose printing slows it.
        executions: Primitives that oneDNN printed in the last call.
    """

    whole: float
    calls: tuple[OperatorCall, ...]
    watched: tuple[OperatorCall, ...]
    executions: tuple[Execution, ...]


@dataclass(frozen=True)
class SiteTime:
    """One int8 operator; milliseconds are medians over the repetitions.

    Attributes:
        site: The node, or a number and oneDNN's shapes if the module does not say.
        kernel: The operator.
        kernel_ms: Time inside oneDNN's computing primitives.
        overhead_ms: Time inside the operator, outside of kernels, reorders and loops.
        loop_ms: Time inside oneDNN's reorders and the loops of prepared plans.
    """

    site: str
    kernel: str
    kernel_ms: float
    overhead_ms: float
    loop_ms: float = 0.0


@dataclass(frozen=True)
class Breakdown:
    """The breakdown of a call; kernels, loops, overhead and rest sum up to the whole.

    Attributes:
        sites: In the order of execution.
        whole_ms: Median of unwatched calls.
    """

    sites: tuple[SiteTime, ...]
    whole_ms: float

    @property
    def kernel_ms(self) -> float:
        """Time inside oneDNN's computing primitives, over all sites."""
        return sum(site.kernel_ms for site in self.sites)

    @property
    def loop_ms(self) -> float:
        """Time inside reorders and loops, over all sites."""
        return sum(site.loop_ms for site in self.sites)

    @property
    def overhead_ms(self) -> float:
        """Time around these inside the operators, over all sites."""
        return sum(site.overhead_ms for site in self.sites)

    @property
    def rest_ms(self) -> float:
        """Time outside int8 operators: float operators, generated loops, calls from Python."""
        return self.whole_ms - self.kernel_ms - self.loop_ms - self.overhead_ms


def break_down(repeats: Sequence[Repeat], kernels: Sequence[KernelCall] = ()) -> Breakdown:
    """Attribute every execution to the operator during which it started.

    Args:
        repeats: At least one.
        kernels: The module's description of its kernels, in order; used if it fits the calls.

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
    # The profiler knows no overloads.
    if [named.kernel.partition(".")[0] for named in kernels] != names:
        return Breakdown(sites, whole)
    named_sites = tuple(
        replace(site, site=str(named.site), kernel=named.kernel)
        for named, site in zip(kernels, sites, strict=True)
    )
    return Breakdown(named_sites, whole)


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
