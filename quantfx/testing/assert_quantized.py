"""An assertion about a whole result: which operators are int8, and which may stay float."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from fnmatch import fnmatchcase

from quantfx.passes.report.report import Report
from quantfx.result import Result


def assert_quantized(
    result: Result,
    *,
    lowered: int | Mapping[str, int] | None = None,
    float_sites: Collection[str] | None = None,
) -> None:
    """Assert that every planned operator reached its kernel, and that only expected ones are float.

    Args:
        result: From ``quantize``, ``convert_qat`` or ``load``.
        lowered: Number of operators that reached their kernels: the total, or by kind as in the
            report, e.g. ``{"conv2d": 3, "linear, dynamic": 1}``; None checks none of it.
        float_sites: The only operators that stay float: names of nodes or paths of their modules,
            or patterns of these (``head.*``). Operators that only move values, read no tensor or
            compute no floats need not be named. None checks none of it.

    Raises:
        AssertionError: an operator is not as expected; names each with the reason.
    """
    __tracebackhide__ = True  # read by pytest
    report = result.report
    found = [*_missed(report), *_miscounted(report, lowered)]
    if float_sites is not None:
        found += _wrongly_float(result, float_sites)
    if found:
        raise AssertionError("\n".join(found))


def _missed(report: Report) -> Iterator[str]:
    for each in report.sites:
        if not each.converted:
            yield f"{each.site} ({each.kind}) is planned and not converted"
        elif each.status == "missed":
            yield f"{each.site} ({each.kind}) did not reach its kernel: {each.reason}"


def _miscounted(report: Report, expected: int | Mapping[str, int] | None) -> Iterator[str]:
    counts = {row.label: row.lowered or 0 for row in report.rows}
    if expected is None:
        return
    if isinstance(expected, int):
        wanted, counts = {"operators": expected}, {"operators": sum(counts.values())}
    else:
        wanted = dict(expected)
    for kind in sorted({*wanted, *counts}):
        want, have = wanted.get(kind, 0), counts.get(kind, 0)
        if want != have:
            yield f"{kind}: {have} reached a kernel, not {want}"


def _wrongly_float(result: Result, allowed: Collection[str]) -> Iterator[str]:
    used: set[str] = set()
    for each in result.explanations():
        if each.standing != "float" or each.idle:
            continue
        names = (each.site, each.module)
        fits = {listed for listed in allowed if any(fnmatchcase(n, listed) for n in names)}
        used |= fits
        if not fits:
            at = f", in {each.module}" if each.module else ""
            yield f"{each.site} ({each.op}{at}) stays float: {each.reason}"
    for listed in sorted(set(allowed) - used):
        yield f"'{listed}' of float_sites names no operator that stays float"
