"""The contents of a result's page, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch.fx import GraphModule

from quantfx.passes.report.compare.comparison import Comparison
from quantfx.passes.report.explain.explanation import Explanation
from quantfx.passes.report.report import Report
from quantfx.result import Result
from quantfx.tools.html.stage import stage_of

_ABOUT = {
    "captured": "The float model as operators. Colours say what becomes of each.",
    "prepared": "With observers, which record the range of each tensor that is to be int8.",
    "q/dq": "Quantize and dequantize operators around float arithmetic: what int8 computes.",
    "lowered": "Calls of int8 kernels: what runs.",
}
_NOT_KEPT = "A result does not keep this graph. Pass it: result.html(path, stages={'%s': graph})."
# Constants are written in their readers, and q/dq on the edges.
_UNTOLD = ("constant", "made")


def result_data(
    result: Result,
    *,
    lowered: GraphModule | None,
    comparison: Comparison | None,
    stages: Mapping[str, GraphModule],
) -> dict[str, Any]:
    """Return the contents of a result's page.

    Args:
        result: The result.
        lowered: The lowered graph; None without kernels.
        comparison: Numbers for the sites.
        stages: Graphs that a result does not keep, by name.
    """
    told = [each for each in result.explanations() if each.kind not in _UNTOLD]
    known = {each.site for each in told}
    kept = {"q/dq": result.quantized, **({"lowered": lowered} if lowered is not None else {})}
    graphs = {**dict.fromkeys(("captured", "prepared")), **stages, **kept}
    return {
        "result": _head(result.report, result.origin.quantfx),
        "report": _report(result.report),
        "work": {str(w.site): [w.macs, w.weight_bytes] for w in result.report.work},
        "sites": [_compact(each) for each in told],
        "comparison": None if comparison is None else comparison.as_dict(),
        "stages": [_stage(name, graph, known) for name, graph in graphs.items()],
        "first": "q/dq",
    }


def graph_data(graphs: Mapping[str, GraphModule]) -> dict[str, Any]:
    """Return the contents of a page of graphs without a result.

    Args:
        graphs: Graphs by the name of their stage.
    """
    return {
        "result": None,
        "report": None,
        "work": {},
        "sites": [],
        "comparison": None,
        "stages": [_stage(name, graph, set()) for name, graph in graphs.items()],
        "first": next(iter(graphs)),
    }


def _stage(name: str, graph: GraphModule | None, known: set[str]) -> dict[str, Any]:
    about = _ABOUT.get(name, "")
    if graph is None:
        return {"name": name, "about": about, "why": _NOT_KEPT % name}
    return stage_of(name, about, graph, known)


def _head(report: Report, version: str) -> dict[str, Any]:
    return {"backend": report.backend, "target": report.target, "version": version}


def _report(report: Report) -> dict[str, Any]:
    """Return the report without wall times, so that equal results give equal bytes."""
    return {
        "headline": report.headline,
        "policy": report.policy,
        "unverified": report.unverified,
        "planned": report.planned,
        "converted": report.converted,
        "lowered": report.lowered,
        "compiled": report.compiled,
        "balance": asdict(report.balance),
        "rows": [{**asdict(row), "label": row.label} for row in report.rows],
        "uncovered": dict(report.uncovered),
        "scales": [asdict(each) for each in report.scales],
        "unused_rules": [asdict(each) for each in report.unused_rules],
        "passes": [[each.name, dict(each.stats)] for each in report.passes],
        "float_bytes": report.float_bytes,
        "quantized_bytes": report.quantized_bytes,
    }


def _compact(each: Explanation) -> dict[str, Any]:
    """Return an explanation without its empty fields, which are most."""
    data = each.as_dict()
    del data["version"]
    return {key: value for key, value in data.items() if value not in ("", None, [], False)}
