from __future__ import annotations

from typing import Any

from quantfx.tools.html.stage import stage_of
from tests.tools.html.pages import quantized


def stage(name: str) -> dict[str, Any]:
    each = quantized()
    lowered = each.result._lowering
    assert lowered is not None
    graphs = {"q/dq": each.result.quantized, "lowered": lowered.module, **each.stages}
    known = {told.site for told in each.result.explanations()}
    return stage_of(name, "", graphs[name], known)


def test_nodes_and_edges_fit_together() -> None:
    for name in ("captured", "q/dq", "lowered"):
        found = stage(name)
        count, boxes = len(found["nodes"]), len(found["boxes"])
        assert all(source < count and target < count for source, target, *_ in found["edges"])
        assert all(box < boxes for node in found["nodes"] for box in node[4])
        targets = {target for _, target, *_ in found["edges"]}
        names = {node[0]: index for index, node in enumerate(found["nodes"])}
        assert names["output"] in targets


def test_quantizes_are_what_flows_on_an_edge() -> None:
    found = stage("q/dq")
    assert not [node for node in found["nodes"] if node[1] in ("quantize", "observe")]
    names = {node[0]: index for index, node in enumerate(found["nodes"])}
    flows = {(s, t): (kind, label) for s, t, kind, label in found["edges"]}
    kind, label = flows[names["x"], names["stem/conv2d"]]
    assert kind == "int8"
    assert "scale" in label
    assert flows[names["stem/conv2d"], names["relu"]][0] == "float"
    assert {edge[2] for edge in stage("captured")["edges"]} == {"float"}


def test_every_operator_of_the_qdq_graph_is_a_site() -> None:
    operators = [node for node in stage("q/dq")["nodes"] if node[1] in ("op", "kernel")]
    assert operators
    assert all(len(node[5]) == 1 for node in operators)


def test_kernel_calls_stand_for_their_sites() -> None:
    found = {site for node in stage("lowered")["nodes"] for site in node[5]}
    planned = {str(each.site) for each in quantized().result.report.sites}
    assert planned <= found
