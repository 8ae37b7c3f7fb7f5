"""Remedies for operators that stay float."""

from __future__ import annotations

import re

from quantfx.passes.report.explain.explanation import Explanation
from quantfx.passes.report.float_remedy import remedy_of

# Pattern of a reason -> its remedy, with the groups of the pattern.
_REMEDIES = (
    (r"quantized on request only: select it, (.*)", "{0} in the config selects it"),
    (
        r"its input (\S+) is not the output of a quantized pattern",
        "quantize {0} first: explain('{0}') says what that needs",
    ),
    (
        r"its input (\S+) is float: (\S+) kernels yield no int8",
        "quantize {0} in mode 'static'",
    ),
    (
        r"only taken as part of a match of (.*)",
        "place it directly after one of {0}, as its only reader",
    ),
    (r"calibration never ran it", "calibrate with batches that reach it"),
    (
        r"^(\S+) is (?:aten|prims)\.\S+, not \S+$",
        "no template of the backend takes it with {0} there: give the backend such a template",
    ),
    (r"is overwritten in place by (\S+)", "write {0} out of place in the model"),
    (r"(\S+) has \d+ users", "let only one operator read {0}, for the larger template"),
    (r"kept float: rule (.*)", "change rule {0} of the config"),
    (r"kept float: the config's default", "give the config a default other than 'float'"),
)


def remedies(known: Explanation, reason: str, backend: str) -> tuple[str, ...]:
    """Return what would make an operator int8 throughout, as sentences without a full stop.

    Args:
        known: The explanation of the operator so far.
        reason: Why it stays float or missed its kernel; empty if unknown.
        backend: Name of the backend.
    """
    found: list[str] = []
    decision, kernel = known.decision, known.kernel
    if decision is not None and decision.mode == "float" and decision.rule:
        found.append(f"change rule {decision.rule} of the config")
    elif known.match is None or reason:
        found.append(_for_reason(reason) or _for_operator(known, reason, backend))
    if kernel is not None and kernel.status == "missed":
        found.append("leave it float by a rule of the config, or backend.without_templates(...)")
    return tuple(filter(None, found))


def _for_reason(reason: str) -> str:
    for pattern, remedy in _REMEDIES:
        match = re.search(pattern, reason)
        if match is not None:
            return remedy.format(*match.groups())
    return ""


def _for_operator(known: Explanation, reason: str, backend: str) -> str:
    return remedy_of(known.op, reason, backend) if known.match is None else ""
