from __future__ import annotations

import pytest
import torch
from torch.fx import GraphModule

from quantfx import Config
from quantfx.backends.x86 import x86
from quantfx.passes.errors import ContractError
from quantfx.passes.quant.qdq import dequantizes
from quantfx.passes.report.contract import (
    count_uncovered,
    find_skipped,
    planned_matches,
    require_converted,
)
from tests.export_cases import Net
from tests.models.small import cat_pool_net, mlp
from tests.refusals import refused
from tests.unchecked import capture, convert

X = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))


def quantized() -> GraphModule:
    return convert(mlp(), (X,), x86())


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
    with refused("not-converted", ContractError, site="linear.input", says="1 planned"):
        require_converted(module)


def test_without_a_pass_the_reasons_say_what_is_missing() -> None:
    backend = x86()
    pipeline = backend.prepare_pipeline.without("annotate-max-pool", "annotate-linear")
    graph = capture(cat_pool_net(), (torch.randn(2, 3, 16, 16),))
    prepared = pipeline.run(graph, backend.context)
    reasons = {remark.node: remark.message for remark in find_skipped(prepared, backend.recipe)}
    assert reasons["cat"] == "its input max_pool2d is not the output of a quantized pattern"
    assert reasons["linear"] == "no pass of the pipeline matches group 'linear'"
    assert "aten.max_pool2d.default" not in count_uncovered(prepared, backend.recipe)
    less = backend.without_templates("max_pool2d").recipe
    assert count_uncovered(prepared, less)["aten.max_pool2d.default"] == 1


@pytest.mark.parametrize("config", [Config(None), Config().op("linear", None)])
def test_a_config_that_keeps_all_float_is_named_as_the_cause(config: Config) -> None:
    graph = capture(mlp(), (X,))
    says = "nothing to quantize: the config keeps 2 operator"
    with refused("nothing-to-quantize", ContractError, says=says, fix="let the config quantize"):
        x86().with_config(config).prepare(graph)


def test_a_model_of_another_dtype_is_told_its_way_out() -> None:
    """One in half precision is computed in float32, see ``test_compute_in_float32``."""
    prepared = capture(mlp().double(), (X.double(),))
    with pytest.raises(ContractError) as error:
        x86().prepare(prepared)
    assert "the model's weights are float64, and templates take float32" in str(error.value)
    assert "quantize model.float(), with inputs and calibration data in float32" in str(error.value)
    assert "is float64, not float32" in str(error.value)


def test_a_float32_model_with_a_buffer_of_another_dtype_is_not() -> None:
    model = Net(lambda layer, x: layer(x).softmax(-1), torch.nn.Softmax(-1)).eval()
    model.register_buffer("table", torch.zeros(2, dtype=torch.float64))
    model.register_parameter("weight", torch.nn.Parameter(torch.zeros(8)))
    with pytest.raises(ContractError) as error:
        x86().prepare(capture(model, (X,)))
    assert "float32" not in str(error.value)
