from __future__ import annotations

from typing import Any

from quantfx.tools.html.page_data import graph_data, result_data
from tests.tools.html.pages import quantized


def data() -> dict[str, Any]:
    each = quantized()
    lowered = each.result._lowering
    return result_data(
        each.result,
        lowered=None if lowered is None else lowered.module,
        comparison=each.comparison,
        stages=each.stages,
    )


def test_every_operator_has_its_explanation() -> None:
    sites = {site["site"]: site for site in data()["sites"]}
    told = quantized().result.explanations()
    assert set(sites) == {each.site for each in told if each.kind not in ("constant", "made")}
    for each in told:
        if each.site in sites:
            assert sites[each.site].get("reason", "") == each.reason
            assert sites[each.site].get("verdict", "") == each.verdict


def test_what_only_moves_values_is_told_apart() -> None:
    by_op = {site.get("op"): site for site in data()["sites"] if site["kind"] == "operator"}
    assert by_op["aten.reshape.default"]["idle"] is True
    assert "idle" not in by_op["aten.erf.default"]
    assert "idle" not in by_op["aten.conv2d.default"]


def test_stages_that_are_not_kept_say_so() -> None:
    stages = {stage["name"]: stage for stage in data()["stages"]}
    assert list(stages) == ["captured", "prepared", "q/dq", "lowered"]
    assert "stages={'prepared': graph}" in stages["prepared"]["why"]
    assert "why" not in stages["captured"]


def test_numbers_and_work_lie_at_sites() -> None:
    found = data()
    sites = {site["site"] for site in found["sites"]}
    assert found["comparison"]["sites"]
    assert {row["site"] for row in found["comparison"]["sites"]} <= sites
    assert set(found["work"]) <= sites
    assert "seconds" not in str(found["report"])


def test_graphs_alone_have_no_report() -> None:
    found = graph_data(quantized().stages)
    assert (found["report"], found["sites"], found["first"]) == (None, [], "captured")
