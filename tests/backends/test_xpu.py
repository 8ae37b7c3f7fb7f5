"""xpu, as far as it can be verified without the hardware: its graphs, beside those of x86."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from syrupy.assertion import SnapshotAssertion
from torch import Tensor, nn
from torch.fx import GraphModule

import quantfx
from quantfx import backends
from quantfx.backends.xpu import OMITTED
from quantfx.passes.observers.observer import Observer
from quantfx.passes.quant.qdq import dtype_of, quantizes
from quantfx.patterns.loader import load
from quantfx.patterns.schema import argument_value, resolve_op
from quantfx.tools.models.resnet import resnet18
from quantfx.tools.models.seeded import seeded
from tests import unchecked
from tests.export_cases import Net
from tests.models.small import cat_pool_net, mlp
from tests.refusals import refused

X = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
MAX_POOL = resolve_op("aten.max_pool2d.default")


TRAINING = ("lift-dropout", "annotate-conv-bn", "fuse-qat-conv-bn", "place-dropout")


def stages(name: str, **options: Any) -> tuple[GraphModule, GraphModule]:
    backend = backends.get(name, target="any", **options)
    prepared = backend.prepare(unchecked.capture(cat_pool_net(), (X,)))
    quantfx.calibrate(prepared, [X])
    return prepared, backend.convert(prepared)


def test_xpu_is_x86_less_max_pooling_and_training() -> None:
    x86, xpu = backends.get("x86", target="any"), backends.get("xpu", target="any")
    left_out = [n for n in x86.prepare_pipeline.names if n not in xpu.prepare_pipeline.names]
    assert left_out == list(OMITTED)
    assert set(left_out) - {"annotate-max-pool"} == set(TRAINING)
    assert xpu.convert_pipeline == x86.convert_pipeline
    static = x86.recipe.patterns.of_mode("static").names
    assert set(static) - set(xpu.recipe.patterns.names) == {"max_pool2d"}
    assert xpu.recipe.patterns.modes == ("static", "weight-only", "weight-only-4bit")
    others = xpu.recipe.patterns.of_mode("weight-only", "weight-only-4bit")
    assert others.names == load("embeddings").names
    assert str(xpu.recipe.spec("act")) == "s8[-128,127] affine"
    assert (
        str(backends.get("xpu", target="any", symmetric=True).recipe.spec("act"))
        == "s8[-128,127] symmetric"
    )
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


def test_the_two_sides_of_a_max_pool_have_an_observer_each() -> None:
    """x86 would observe both sides with one: an int8 pool keeps its input's qparams."""

    def body(stem: nn.Module, before: nn.Module, after: nn.Module, x: Tensor) -> Tensor:
        y = stem(x)
        return before(y).mean() + after(F.max_pool2d(y, 2))

    def observers(name: str) -> list[str]:
        def conv() -> nn.Conv2d:
            return nn.Conv2d(3, 3, 1)

        model = seeded(lambda: Net(body, conv(), conv(), conv()))
        prepared = backends.get(name, target="any").prepare(unchecked.capture(model, (X,)))
        [pool] = prepared.graph.find_nodes(op="call_function", target=MAX_POOL)
        stem = next(n for n in prepared.graph.nodes if n.name == "conv2d")
        sides = [*stem.users, *pool.users]
        return [str(node.target) for node in sides if node.op == "call_module"]

    on_x86, on_xpu = observers("x86"), observers("xpu")
    assert len(on_x86) == len(on_xpu) == 2
    assert len(set(on_x86)) == 1
    assert len(set(on_xpu)) == 2


@pytest.mark.parametrize(
    ("make", "inputs"),
    [
        pytest.param(cat_pool_net, (X,), id="cat_pool"),
        pytest.param(lambda: resnet18((1, 1), width=8, classes=10), (X,), id="resnet"),
        pytest.param(mlp, (X.flatten(1)[:, :8],), id="mlp"),
    ],
)
def test_signed_codes_are_the_unsigned_ones_less_128(
    make: Callable[[], nn.Module], inputs: tuple[Tensor, ...]
) -> None:
    """So, beside max pooling, xpu must compute bit for bit what x86 does."""
    x86 = backends.get("x86", target="any").without_templates("max_pool2d")
    pipeline = x86.prepare_pipeline.without("annotate-max-pool")
    outputs: list[Tensor] = []
    for backend in (replace(x86, prepare_pipeline=pipeline), backends.get("xpu", target="any")):
        outputs.append(unchecked.convert(make(), inputs, backend)(*inputs))
    assert torch.equal(*outputs)


def test_symmetric_activations_have_their_zero_point_at_zero() -> None:
    def zero_points(**options: Any) -> set[int]:
        nodes = stages("xpu", **options)[1].graph.nodes
        return {argument_value(node, "zero_point") for node in nodes if quantizes(node)}

    assert zero_points(symmetric=True) == {0}
    assert zero_points() != {0}


@pytest.mark.parametrize("symmetric", [False, True])
def test_the_graph_computes_what_the_model_does(symmetric: bool) -> None:
    _, quantized = stages("xpu", symmetric=symmetric)
    with torch.no_grad():
        expected = cat_pool_net()(X)
        error = (quantized(X) - expected).square().sum()
    assert 10 * torch.log10(expected.square().sum() / error) > 20


def test_compiling_for_this_machine_is_refused_with_the_reason() -> None:
    result = unchecked.quantize(cat_pool_net(), (X,), backend="xpu")
    assert result.report.backend == "xpu"
    assert "unverified: no XPU" in str(result.report)
    with refused("not-here", site="xpu"):
        result.compile()
