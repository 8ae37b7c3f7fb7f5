"""Inductor's own freezing patterns hit xpu's q/dq graphs on device "xpu": without an Intel GPU.

FakeTensors need no driver: the q/dq graph is traced anew with fakes on "xpu" and Inductor's
decompositions, and the patterns that turn q/dq into oneDNN operators run on the trace. What they
make of it is counted, never run: kernels, code generation and speed stay unverified.

Attention is spelled out here, because ``scaled_dot_product_attention`` asks the device which
kernel it has, and there is none. torch 2.13 is the last to have these patterns; its private names
are listed in ARCHITECTURE.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import pytest
import torch
import torch._inductor.config
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch._inductor.decomposition import select_decomp_table
from torch._inductor.fx_passes import freezing_patterns
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.func import functional_call
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from quantfx import backends
from quantfx.passes.quant.qdq import dtype_of, quantizes
from quantfx.passes.report.contract import planned_matches
from quantfx.tools.models.bert import BertConfig, EncoderLayer
from quantfx.tools.models.mobilenet_v2 import STAGES, mobilenet_v2
from quantfx.tools.models.resnet import resnet18
from quantfx.tools.models.seeded import seeded
from tests import unchecked
from tests.backends.qdq_patterns import has_qdq_patterns
from tests.models.small import cat_pool_net

pytestmark = pytest.mark.skipif(
    not has_qdq_patterns(), reason="torch 2.13 is the last to have q/dq patterns in Inductor"
)
_GENERATOR = torch.Generator().manual_seed(0)
IMAGE = torch.randn(2, 3, 32, 32, generator=_GENERATOR)
SEQUENCE = torch.randn(2, 8, 32, generator=_GENERATOR)
MASK = torch.zeros(2, 1, 1, 8)


@dataclass(frozen=True)
class Case:
    """A network, its inputs, and the oneDNN operators its q/dq graph must become."""

    make: Callable[[], nn.Module]
    inputs: tuple[Tensor, ...]
    kernels: dict[str, int]


def three_linears() -> nn.Module:
    return seeded(
        lambda: nn.Sequential(
            nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 4)
        )
    )


CASES = {
    "mlp": Case(three_linears, (SEQUENCE[0, :, :8],), {"qlinear_pointwise": 3}),
    "resnet": Case(
        lambda: resnet18((1, 1), width=8, classes=10),
        (IMAGE,),
        {"qconv_pointwise": 4, "qconv2d_pointwise.binary": 2, "qlinear_pointwise": 1},
    ),
    "mobilenet": Case(
        lambda: mobilenet_v2(STAGES[:2], last=32, classes=10),
        (IMAGE,),
        {"qconv_pointwise": 9, "qconv2d_pointwise.binary": 1, "qlinear_pointwise": 1},
    ),
    "cat_pool": Case(cat_pool_net, (IMAGE,), {"qconv_pointwise": 3, "qlinear_pointwise": 1}),
    "encoder_layer": Case(
        lambda: seeded(lambda: EncoderLayer(BertConfig(hidden=32, heads=2))),
        (SEQUENCE, MASK),
        {"qlinear_pointwise": 4, "qlinear_pointwise.binary": 2},
    ),
}


@pytest.fixture(autouse=True)
def _counters_as_they_were() -> Iterator[None]:
    with mock.patch.dict(counters["inductor"]):
        yield


def quantized(case: Case, **options: Any) -> GraphModule:
    backend = backends.get("xpu", target="any", **options)
    return unchecked.convert(case.make(), case.inputs, backend)


def retraced(module: GraphModule, inputs: tuple[Tensor, ...], device: str) -> GraphModule:
    """Trace ``module`` as Inductor gets it, with every tensor a fake one on ``device``."""
    state = {name: each.to("meta") for name, each in module.state_dict().items()}
    metas = [each.to("meta") for each in inputs]

    def call(state: dict[str, Tensor], *args: Tensor) -> Any:
        return functional_call(module, state, args)

    with FakeTensorMode() as mode, torch.no_grad():

        def fake(meta: Tensor) -> FakeTensor:
            return FakeTensor(mode, meta, torch.device(device))

        trace = make_fx(call, decomposition_table=select_decomp_table())
        traced = trace({name: fake(each) for name, each in state.items()}, *map(fake, metas))
    # Inductor does the same before it freezes, because weights may change their layout.
    for node in traced.graph.find_nodes(op="call_function", target=torch.ops.aten.view.default):
        node.target = torch.ops.aten.reshape.default
    return traced


def onednn_operators(module: GraphModule, inputs: tuple[Tensor, ...], device: str) -> Counter[str]:
    """Return what Inductor's freezing patterns make of ``module`` on ``device``."""
    traced = retraced(module, inputs, device)
    devices = {node.meta["val"].device.type for node in traced.graph.find_nodes(op="placeholder")}
    assert devices == {device}
    with torch._inductor.config.patch(freezing=True):
        freezing_patterns.lazy_init()
        for patterns in freezing_patterns.pass_patterns:
            patterns.apply(traced)
    traced.graph.lint()
    targets = (str(n.target) for n in traced.graph.nodes if n.op == "call_function")
    return Counter(
        name.removeprefix("onednn.").removesuffix(".default")
        for name in targets
        if name.startswith("onednn.") and "prepack" not in name
    )


# Zero points are numbers to these patterns: one network shows it for symmetric ranges.
IN_CI = {
    (name, symmetric)
    for name in ("mlp", "resnet", "cat_pool", "encoder_layer")
    for symmetric in (False, True)
    if not symmetric or name == "cat_pool"
}


@pytest.mark.parametrize(
    ("name", "symmetric"),
    [
        pytest.param(
            name,
            symmetric,
            id=f"{name}-{'symmetric' if symmetric else 'affine'}",
            marks=[] if (name, symmetric) in IN_CI else pytest.mark.sweep,
        )
        for name in CASES
        for symmetric in (False, True)
    ],
)
def test_every_planned_kernel_is_hit_on_xpu_as_on_cpu(name: str, symmetric: bool) -> None:
    case = CASES[name]
    module = quantized(case, symmetric=symmetric)
    assert {dtype_of(node) for node in module.graph.nodes if quantizes(node)} == {torch.int8}
    planned = Counter(m.annotation.kernel for m in planned_matches(module) if m.annotation.kernel)
    assert planned == case.kernels
    assert onednn_operators(module, case.inputs, "xpu") == planned
    assert onednn_operators(module, case.inputs, "cpu") == planned


def test_the_patterns_look_at_the_device() -> None:
    """So a hit on "xpu" says something: convolutions are lowered on cpu and xpu only."""
    case = CASES["cat_pool"]
    module = quantized(case)
    assert onednn_operators(module, case.inputs, "cuda") == {"qlinear_pointwise": 1}
    assert onednn_operators(module, case.inputs, "meta") == {}


def test_counting_sees_a_pair_that_went_missing() -> None:
    case = CASES["mlp"]
    module = quantized(case)
    dequantize = torch.ops.quantized_decomposed.dequantize_per_tensor.default
    [first, *_] = module.graph.find_nodes(op="call_function", target=dequantize)
    first.replace_all_uses_with(first.all_input_nodes[0].all_input_nodes[0])
    module.recompile()
    assert onednn_operators(module, case.inputs, "xpu") == {"qlinear_pointwise": 2}
