"""What can be asked for, and what is told to who asks for something else."""

from __future__ import annotations

import pytest

from quantfx.passes.report.explain.places import Names
from tests.passes.report.explain.explained import folded, shared
from tests.refusals import refused


def test_nodes_modules_parameters_and_patterns() -> None:
    names = Names()
    names.add("conv2d", ["layer1.0.conv"])
    names.add("relu", ["layer1.0", "layer1.0.relu"])
    names.add("linear", ["fc"])
    names.other_names["fc.weight"] = "fc_weight"
    names.add("fc_weight")
    assert names.find("conv2d") == ["conv2d"]
    assert names.find("layer1") == names.find("layer1.*") == ["conv2d", "relu"]
    assert names.find("layer1.0.conv") == ["conv2d"]
    assert names.find("fc.weight") == ["fc_weight"]
    assert names.find("fc*") == ["linear", "fc_weight"], "in the order of the graph"
    with refused("unknown-name", site="layer2", says="did you mean 'layer1'"):
        names.find("layer2")


def test_unknown_names_of_a_model() -> None:
    with refused("unknown-name", site="cnv", fix="path of a module", says="'conv'"):
        folded().explain("cnv")
    with refused("unknown-name", site="nothing.*"):
        folded().explain("nothing.*")


@pytest.mark.parametrize("name", ["left", "conv2d", "conv2d.*", "le?t"])
def test_answers_come_in_graph_order(name: str) -> None:
    result = shared()
    order = [each.site for each in result.explanations()]
    found = [each.site for each in result.explain(name)]
    assert "conv2d" in found or name == "conv2d.*"
    assert found == sorted(found, key=order.index)
    assert result.explain(name).asked == name
