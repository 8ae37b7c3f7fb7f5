from __future__ import annotations

import pytest
import torch
from torch.fx import GraphModule

from quantfx.backends.x86 import x86
from quantfx.passes.calibrate import calibrate
from quantfx.passes.capture import capture
from quantfx.passes.contract import planned_matches, require_converted, skipped, uncovered
from quantfx.passes.errors import ContractError
from quantfx.passes.qdq import dequantizes
from tests.models.small import cat_pool_net, mlp

X = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))


def quantized() -> GraphModule:
    prepared = x86().prepare(capture(mlp(), (X,)))
    calibrate(prepared, [X], progress=False)
    return x86().convert(prepared)


def test_matches_know_their_module_and_template() -> None:
    found = [(str(m.site), m.annotation.template, m.module) for m in planned_matches(quantized())]
    assert [(site, template) for site, template, _ in found] == [
        ("linear", "linear_unary"),
        ("linear_1", "linear"),
    ]
    assert all(module for _, _, module in found)


def test_a_site_that_lost_its_dequantize_is_named() -> None:
    module = quantized()
    dq = next(n for n in module.graph.nodes if dequantizes(n) and n.args[0].op != "get_attr")
    dq.replace_all_uses_with(dq.args[0].args[0])
    with pytest.raises(
        ContractError, match=r"1 planned site\(s\) were not converted: linear.input"
    ):
        require_converted(module)


def test_without_a_pass_the_reasons_say_what_is_missing() -> None:
    backend = x86()
    pipeline = backend.prepare_pipeline.without("annotate-max-pool", "annotate-linear")
    graph = capture(cat_pool_net(), (torch.randn(2, 3, 16, 16),))
    prepared = pipeline.run(graph, backend.context)
    reasons = {remark.node: remark.message for remark in skipped(prepared, backend.recipe)}
    assert reasons["cat"] == "its input max_pool2d is not the output of a quantized pattern"
    assert reasons["linear"] == "no pass of the pipeline matches group 'linear'"
    assert "aten.max_pool2d.default" not in uncovered(prepared, backend.recipe)
    less = backend.without_templates("max_pool2d").recipe
    assert uncovered(prepared, less)["aten.max_pool2d.default"] == 1
