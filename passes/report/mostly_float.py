"""The headline for a model that stays mostly float: how much, why, and what helps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from quantfx.passes.graph.graphs import Site
from quantfx.passes.report.float_remedy import remedy_of, unmentioned
from quantfx.passes.report.outcome import SiteOutcome
from quantfx.passes.report.work import OperatorWork

_MOST_CAUSES = 3


@dataclass(frozen=True)
class Balance:
    """Quantized and float work, summed over a model.

    Attributes:
        macs: Multiply-accumulates of all operators that can be counted.
        float_macs: Multiply-accumulates of operators that stay float.
        weight_bytes: Bytes of all weights, in float.
        float_weight_bytes: Bytes of weights that only float operators read.
        unknown: Operator -> number of calls whose multiply-accumulates are unknown.
    """

    macs: int
    float_macs: int
    weight_bytes: int
    float_weight_bytes: int
    unknown: tuple[tuple[str, int], ...] = ()

    @staticmethod
    def of(work: Collection[OperatorWork]) -> Balance:
        """Sum up ``work``; planned operators count as quantized."""
        stays = [row for row in work if not row.planned]
        unknown = Counter(row.op for row in work if row.macs is None)
        return Balance(
            sum(row.macs or 0 for row in work),
            sum(row.macs or 0 for row in stays),
            sum(row.weight_bytes for row in work),
            sum(row.weight_bytes for row in stays),
            tuple(sorted(unknown.items())),
        )

    @property
    def is_mostly_float(self) -> bool:
        """Whether most known multiply-accumulates, or most weight bytes, stay float."""
        return 2 * self.float_macs > self.macs or 2 * self.float_weight_bytes > self.weight_bytes

    def shares(self, macs: int, weight_bytes: int) -> str:
        """Return ``macs`` and ``weight_bytes`` as shares of the model."""
        parts: list[str] = []
        if macs:
            parts.append(f"{macs / self.macs:.0%} of the multiply-accumulates")
        if weight_bytes:
            parts.append(f"{weight_bytes / self.weight_bytes:.0%} of the weight bytes")
        return " and ".join(parts)

    def __str__(self) -> str:
        parts: list[str] = []
        if self.macs:
            share = 1 - self.float_macs / self.macs
            parts.append(f"{share:.0%} of {_amount(self.macs)} multiply-accumulates")
        if self.weight_bytes:
            share = 1 - self.float_weight_bytes / self.weight_bytes
            parts.append(f"{share:.0%} of {_size(self.weight_bytes)} of weights")
        text = f"quantized: {', '.join(parts)}" if parts else ""
        if self.unknown:
            listed = ", ".join(f"{op} x{count}" for op, count in self.unknown)
            text += f"{'; ' if text else ''}multiply-accumulates not known of {listed}"
        return text


def add_reached(
    work: Collection[OperatorWork], sites: tuple[SiteOutcome, ...]
) -> tuple[OperatorWork, ...]:
    """Return ``work`` with planned operators that missed their kernel counted as float."""
    reasons: dict[Site, str] = {}
    for outcome in sites:
        if "" in (outcome.kernel, outcome.compiled) or not outcome.converted:
            reasons[outcome.site] = outcome.reason or "it was planned, but not converted"
    return tuple(
        replace(row, planned=False, reason=reasons[row.site]) if row.site in reasons else row
        for row in work
    )


def headline(work: Sequence[OperatorWork], *, backend: str, planned: int) -> str:
    """Return one line if most multiply-accumulates or weight bytes stay float, else "".

    Args:
        work: From ``add_reached``.
        backend: Name of the backend; remedies depend on it.
        planned: Number of planned sites; with 0, nothing is quantized.
    """
    balance = Balance.of(work)
    if planned and not balance.is_mostly_float:
        return ""
    first = "most of the model stays float" if planned else "nothing is quantized"
    if shares := balance.shares(balance.float_macs, balance.float_weight_bytes):
        first += f": {shares}"
    found = by_cause(work)
    main = [group for group in found if matters(Balance.of(group[1]), balance)][:_MOST_CAUSES]
    causes = [_cause(key, rows, balance, backend) for key, rows in main]
    if len(found) > len(main):
        causes.append(f"{len(found) - len(main)} smaller in report.work")
    return f"{first}. Causes: {'; '.join(causes)}" if causes else first


def matters(own: Balance, total: Balance) -> bool:
    """Whether ``own`` is at least a hundredth of ``total``, or unknown."""
    return (
        bool(own.unknown)
        or 100 * own.macs > total.macs
        or 100 * own.weight_bytes > total.weight_bytes
    )


_Key = tuple[str, str]
_Rows = list[OperatorWork]


def by_cause(work: Sequence[OperatorWork]) -> list[tuple[_Key, _Rows]]:
    """Return float operators grouped by operator and reason, most expensive first."""
    groups: dict[_Key, _Rows] = {}
    for row in work:
        if not row.planned:
            groups.setdefault((row.op, row.reason), []).append(row)
    total = Balance.of(work)

    def weight(group: tuple[_Key, _Rows]) -> tuple[float, int]:
        own = Balance.of(group[1])
        largest = max(own.macs / max(total.macs, 1), own.weight_bytes / max(total.weight_bytes, 1))
        return -largest, -len(own.unknown)

    return sorted(groups.items(), key=weight)


def _cause(key: _Key, rows: _Rows, total: Balance, backend: str) -> str:
    op, reason = key
    own = Balance.of(rows)
    shares = total.shares(own.macs, own.weight_bytes)
    if own.unknown:
        shares += f"{', ' if shares else ''}multiply-accumulates not known"
    remedy = remedy_of(op, reason, backend)
    return f"{op} x{len(rows)} ({shares}): {reason_for(rows[0])}{f': {remedy}' if remedy else ''}"


def reason_for(row: OperatorWork) -> str:
    """Return why an operator stays float, even if nothing mentions it."""
    return row.reason or unmentioned(row.op)


def _amount(count: int) -> str:
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return str(count)


def _size(count: int) -> str:
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count / 2**10:.1f} KiB"
