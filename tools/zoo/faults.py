"""The faults of a row of the zoo, and their explanations."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantfx.patterns.errors import unknown_name
from quantfx.tools.zoo.networks import ZooError
from quantfx.tools.zoo.row import FloatOperator, Row

EXPLAINED = Path(__file__).with_name("explained.toml")

LEAST_DECIBELS = 20.0
_MOST_STEPS = 1
_MOST_ERROR = 1e-4
# Operators that multiply by a stored or computed weight.
_LAYERS = ("aten.conv", "aten.linear", "aten.prelu")
# Products; of two activations they are attention, which no kernel takes.
_PRODUCTS = ("aten.mm", "aten.addmm", "aten.matmul", "aten.bmm", "aten.baddbmm", "aten.einsum")


@dataclass(frozen=True)
class GoodReason:
    """Why an operator may stay float.

    Attributes:
        op: Its name begins with this.
        text: Part of the reason that the report gives.
        because: The explanation in one sentence.
    """

    op: str
    text: str
    because: str


@dataclass(frozen=True)
class Explanation:
    """Why some networks may have a fault.

    Attributes:
        networks: Names of the networks.
        text: Part of the fault.
        because: The explanation in one sentence.
        least: Lowest dB that this explains.
    """

    networks: tuple[str, ...]
    text: str
    because: str
    least: float = 0.0

    def explains(self, network: str, fault: str) -> bool:
        """Whether this is why a network has a fault."""
        if network not in self.networks or self.text not in fault:
            return False
        if not fault.endswith(" dB"):
            return True
        return float(fault.split()[-2]) >= self.least  # no number is more than that


@dataclass(frozen=True)
class Explained:
    """All explanations."""

    reasons: tuple[GoodReason, ...] = ()
    explanations: tuple[Explanation, ...] = ()

    def of(self, network: str, fault: str) -> str:
        """Return the explanation of a fault; "" if there is none."""
        for each in self.explanations:
            if each.explains(network, fault):
                return each.because
        return ""

    def why_float(self, operator: FloatOperator) -> str:
        """Return why an operator may stay float; "" if it may not."""
        for each in self.reasons:
            if operator.op.startswith(each.op) and each.text in operator.reason:
                return each.because
        return ""


def load_explained(path: Path = EXPLAINED) -> Explained:
    """Return the explanations in a TOML file.

    Raises:
        ZooError: a key is unknown or missing, or a sentence is.
    """
    data = tomllib.loads(path.read_text(encoding="utf-8"))
    if unknown := data.keys() - {"reason", "fault"}:
        raise unknown_name(ZooError, "key", min(unknown), ("reason", "fault"), of=path.name)
    reasons = [_checked(each, ("op", "text", "because")) for each in data.get("reason", [])]
    faults = [
        _checked(each, ("networks", "text", "because"), ("least",))
        for each in data.get("fault", [])
    ]
    return Explained(
        tuple(GoodReason(**each) for each in reasons),
        tuple(Explanation(tuple(each.pop("networks")), **each) for each in faults),
    )


def faults_of(row: Row, explained: Explained) -> tuple[str, ...]:
    """Return everything that is wrong with a row, explained or not."""
    return (
        *_stage_faults(row),
        *_number_faults(row),
        *(
            f"float: {each.op} x{each.count}: {each.reason or 'no template takes it'}"
            for each in row.floats
            if must_be_int8(each) and not explained.why_float(each)
        ),
    )


def must_be_int8(operator: FloatOperator) -> bool:
    """Whether an operator that stays float needs a good reason."""
    if not operator.known or operator.op.startswith(_LAYERS):
        return True
    return operator.op.startswith(_PRODUCTS) and operator.reads_weights


def unexplained(rows: Iterable[Row], explained: Explained) -> dict[str, tuple[str, ...]]:
    """Return the unexplained faults by network, for networks that have any."""
    found: dict[str, tuple[str, ...]] = {}
    for row in rows:
        left = tuple(f for f in faults_of(row, explained) if not explained.of(row.network, f))
        if left:
            found[row.network] = left
    return found


def unused(rows: Iterable[Row], explained: Explained) -> list[Explanation]:
    """Return explanations of networks in ``rows`` that no longer have the fault."""
    faults = {row.network: faults_of(row, explained) for row in rows}
    return [
        each
        for each in explained.explanations
        if set(each.networks) <= faults.keys()
        and not any(each.explains(name, fault) for name in each.networks for fault in faults[name])
    ]


def _stage_faults(row: Row) -> Iterable[str]:
    for name, stage in row.stages.items():
        if stage.outcome != "done":
            yield f"{name}: {stage.outcome}: {stage.message}"
    if row.auto_state not in ("", "int8"):
        yield f"auto: its state is '{row.auto_state}'"


def _number_faults(row: Row) -> Iterable[str]:
    for what, decibels in row.decibels.items():
        if math.isnan(decibels) or decibels < LEAST_DECIBELS:
            yield f"{what}: {decibels:.1f} dB"
    if (row.steps or 0) > _MOST_STEPS:
        yield f"kernels: a call is off by {row.steps} steps"
    if (row.error or 0.0) > _MOST_ERROR:
        yield f"kernels: a call is off by {row.error:.1g} of the largest magnitude"
    for what, reached in (("lowered", row.lowered), ("compiled", row.compiled)):
        stage = row.stages.get("quantize" if what == "lowered" else "compile")
        if stage and stage.outcome == "done" and reached < row.planned:
            yield f"{what}: {reached} of {row.planned} sites"


def _checked(
    table: Mapping[str, Any], keys: tuple[str, ...], optional: tuple[str, ...] = ()
) -> dict[str, Any]:
    if set(table) - set(optional) != set(keys) or not str(table["because"]).strip():
        raise ZooError(
            f"an explanation has the keys {', '.join(keys)}, not {sorted(table)}", rule="zoo-entry"
        )
    return dict(table)
