"""xpu, as far as it can be verified without the hardware: its graphs, beside those of x86."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from syrupy.assertion import SnapshotAssertion
from torch.fx import GraphModule

import quantfx
from quantfx import backends
from quantfx.backends.xpu import OMITTED
from quantfx.passes.observer import Observer
from quantfx.passes.qdq import dtype_of, quantizes
from quantfx.patterns.errors import QuantfxError
from quantfx.patterns.schema import resolve_op
from tests.models.small import cat_pool_net

X = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
MAX_POOL = resolve_op("aten.max_pool2d.default")


def stages(name: str, **options: Any) -> tuple[GraphModule, GraphModule]:
    backend = backends.get(name, **options)
    prepared = backend.prepare(quantfx.capture(cat_pool_net(), (X,)))
    quantfx.calibrate(prepared, [X], progress=False)
    return prepared, backend.convert(prepared)


def test_xpu_is_x86_less_two_passes_and_a_template() -> None:
    x86, xpu = backends.get("x86"), backends.get("xpu")
    left_out = [n for n in x86.prepare_pipeline.names if n not in xpu.prepare_pipeline.names]
    assert left_out == ["annotate-max-pool"]
    assert set(left_out) <= set(OMITTED)
    assert xpu.convert_pipeline == x86.convert_pipeline
    assert set(x86.recipe.patterns.names) - set(xpu.recipe.patterns.names) == {"max_pool2d"}
    assert str(xpu.recipe.spec("act")) == "s8[-128,127] affine"
    assert str(backends.get("xpu", symmetric=True).recipe.spec("act")) == "s8[-128,127] symmetric"
    assert xpu.recipe.spec("conv_weight") == x86.recipe.spec("conv_weight")


@pytest.mark.parametrize("name", ["x86", "xpu"])
def test_drawings_beside_each_other(name: str, graph_snapshot: SnapshotAssertion) -> None:
    assert stages(name)[1] == graph_snapshot


def test_no_observer_is_shared_across_max_pool() -> None:
    prepared, quantized = stages("xpu")
    [pool] = prepared.graph.find_nodes(op="call_function", target=MAX_POOL)
    [before], after = pool.all_input_nodes, list(pool.users)
    assert before.op == "call_function", "the pool reads float"
    observed = [user.target for user in after if user.op == "call_module"]
    assert not any(isinstance(prepared.get_submodule(str(t)), Observer) for t in observed)
    for node in quantized.graph.nodes:
        if quantizes(node):
            assert dtype_of(node) == torch.int8


@pytest.mark.parametrize("symmetric", [False, True])
def test_the_graph_computes_what_the_model_does(symmetric: bool) -> None:
    _, quantized = stages("xpu", symmetric=symmetric)
    with torch.no_grad():
        expected = cat_pool_net()(X)
        error = (quantized(X) - expected).square().sum()
    assert 10 * torch.log10(expected.square().sum() / error) > 20


def test_compiling_for_this_machine_is_refused_with_the_reason() -> None:
    result = quantfx.quantize(cat_pool_net(), (X,), calibration=[X], backend="xpu", progress=False)
    assert result.report.backend == "xpu"
    assert "no Intel GPU was at hand" in " ".join(str(result.report).split())
    with pytest.raises(QuantfxError, match="backend 'xpu' do not run on this machine"):
        result.compile()
