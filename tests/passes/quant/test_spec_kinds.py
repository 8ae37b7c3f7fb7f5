"""Specs beyond an observed range: dynamic, cast, fixed, derived and shared with another site."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule

from quantfx.passes.annotate.share import Share
from quantfx.passes.convert.fold_weights import FoldWeights
from quantfx.passes.convert.insert_qdq import InsertQDQ
from quantfx.passes.convert.tidy import Tidy
from quantfx.passes.errors import ShareConflict, SpecError
from quantfx.passes.graph.graphs import Site
from quantfx.passes.observe.calibrate import calibrate
from quantfx.passes.observe.insert_observers import InsertObservers
from quantfx.passes.observers.derived import DerivedFrom
from quantfx.passes.observers.fixed import FixedQParams
from quantfx.passes.pipeline.base import Context, Pass, PassResult
from quantfx.passes.pipeline.pipeline import Pipeline
from quantfx.passes.quant.annotation import Annotation, annotation_of, set_annotation
from quantfx.passes.quant.qdq import quantizes
from quantfx.passes.quant.spec import CastSpec, QuantSpec, SharedSpec, Spec
from quantfx.passes.report.contract import require_converted
from tests.export_cases import Net
from tests.refusals import refused
from tests.unchecked import capture

ACT = QuantSpec(torch.uint8, 0, 255, observer="min_max")
WEIGHT = QuantSpec(torch.int8, -128, 127, symmetric=True, axis=0, observer="min_max")
DYNAMIC = QuantSpec(torch.uint8, 0, 255, dynamic=True)
S32 = QuantSpec(torch.int32, -(2**31), 2**31 - 1, symmetric=True)
X = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
CONVERT = Pipeline((InsertQDQ(), FoldWeights(), Tidy()))

Wanted = dict[str, dict[str, Spec]]


@dataclass(frozen=True)
class Mark(Pass):
    """Annotate by node name and slot; "" is the output."""

    name: ClassVar[str] = "mark"
    provides: ClassVar[frozenset[str]] = frozenset({"annotated"})
    wanted: Any = None

    def run(self, module: GraphModule, context: Context) -> PassResult:
        for node in module.graph.nodes:
            if node.name in self.wanted:
                specs = dict(self.wanted[node.name])
                output = specs.pop("", None)
                inputs = tuple(specs.items())
                set_annotation(node, Annotation("t", node.name, "op", "", "fused", inputs, output))
        return PassResult()


@dataclass(frozen=True)
class Case:
    """A captured model, and what is to be quantized in it."""

    graph: GraphModule
    wanted: Wanted

    def prepared(self) -> GraphModule:
        return Pipeline((Mark(self.wanted), Share(), InsertObservers())).run(self.graph)

    def quantized(self, *batches: Tensor) -> GraphModule:
        prepared = self.prepared()
        calibrate(prepared, batches or [X])
        module = CONVERT.run(prepared)
        require_converted(module)
        return module


def case(body: Callable[..., Any], *layers: nn.Module, **wanted: dict[str, Spec]) -> Case:
    torch.manual_seed(0)
    return Case(capture(Net(body, *layers).eval(), (X,)), wanted)


def linear(bias: bool = True) -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(8, 8, bias=bias)


def ops(module: GraphModule) -> Counter[str]:
    return Counter(
        str(n.target).split(".")[1]
        for n in module.graph.nodes
        if n.op == "call_function" and n.target is not operator.getitem
    )


def affine(x: Tensor, low: int, high: int) -> Tensor:
    """Round ``x`` to the affine grid of its own range, zero included."""
    least, most = x.amin().clamp(max=0), x.amax().clamp(min=0)
    scale = ((most.double() - least.double()) / (high - low)).clamp(
        min=torch.finfo(torch.float32).eps
    )
    zero = (low - (least.double() / scale).round()).clamp(low, high)
    return (((x.double() / scale).round() + zero).clamp(low, high) - zero).mul(scale).float()


# -- dynamic ------------------------------------------------------------------------------------


def test_a_dynamic_range_is_that_of_each_call() -> None:
    layer = linear()
    module = case(lambda f, x: f(x), layer, linear={"input": DYNAMIC}).quantized()
    for scale in (1e-3, 1.0, 300.0):
        x = X.flip(0) * scale
        expected = layer(affine(x, 0, 255))
        assert torch.allclose(module(x), expected, rtol=1e-4, atol=1e-5 * scale)
    assert not torch.allclose(module(X), layer(X), rtol=1e-4, atol=1e-5)


def test_all_dynamic_readers_of_a_tensor_share_one_dequantize() -> None:
    readers: Wanted = {"linear": {"input": DYNAMIC}, "linear_1": {"input": DYNAMIC}}
    module = case(lambda f, g, x: f(x) + g(x), linear(), linear(), **readers).quantized()
    assert ops(module) == {
        "choose_qparams": 1,
        "quantize_per_tensor": 1,
        "dequantize_per_tensor": 1,
        "linear": 2,
        "add": 1,
    }


def test_a_symmetric_dynamic_range_has_its_zero_point_in_the_middle() -> None:
    spec = QuantSpec(torch.int8, -127, 127, symmetric=True, dynamic=True)
    layer = linear()
    module = case(lambda f, x: f(x), layer, linear={"input": spec}).quantized()
    scale = X.abs().amax() / 127
    expected = layer((X / scale).round().clamp(-127, 127) * scale)
    assert torch.allclose(module(X), expected, atol=1e-5)
    assert ops(module)["choose_qparams_symmetric"] == 1


def test_a_tensor_read_statically_and_dynamically_is_quantized_once_for_each() -> None:
    readers: Wanted = {"linear": {"input": DYNAMIC}, "linear_1": {"input": ACT}}
    module = case(lambda f, g, x: f(x) + g(x), linear(), linear(), **readers).quantized()
    assert ops(module)["quantize_per_tensor"] == 2


def test_dynamic_needs_no_calibration() -> None:
    prepared = case(lambda f, x: f(x), linear(), linear={"input": DYNAMIC}).prepared()
    assert ops(CONVERT.run(prepared))["choose_qparams"] == 1


# -- cast ---------------------------------------------------------------------------------------


def test_a_cast_weight_is_stored_narrow_and_computed_with_wide() -> None:
    layer = linear()
    module = case(lambda f, x: f(x), layer, linear={"weight": CastSpec(torch.float16)}).quantized()
    assert torch.equal(module(X), F.linear(X, layer.weight.half().float(), layer.bias))
    stored = {str(name): value.dtype for name, value in module.state_dict().items()}
    assert sorted(map(str, stored.values())) == ["torch.float16", "torch.float32"]
    assert ops(module) == {"convert_element_type": 1, "linear": 1}


def test_each_reader_of_a_cast_weight_has_its_own_cast_back() -> None:
    cast = CastSpec(torch.float16)
    readers: Wanted = {"linear": {"weight": cast}, "linear_1": {"weight": cast}}
    module = case(lambda f, x: f(f(x)), linear(), **readers).quantized()
    assert ops(module)["convert_element_type"] == 2
    assert [t.dtype for t in module.state_dict().values()].count(torch.float16) == 1


# -- fixed --------------------------------------------------------------------------------------


def test_fixed_qparams_do_not_depend_on_data() -> None:
    spec = QuantSpec(torch.uint8, 0, 255, observer=FixedQParams(1 / 256))
    chosen = case(lambda x: x.sigmoid(), sigmoid={"": spec})
    expected = (X.sigmoid() * 256).round().clamp(0, 255) / 256
    assert torch.equal(chosen.quantized(X * 100)(X), expected)
    assert torch.equal(CONVERT.run(chosen.prepared())(X), expected)  # never calibrated


def test_fixed_qparams_reach_the_sites_that_share_them() -> None:
    spec = QuantSpec(torch.uint8, 0, 255, observer=FixedQParams(0.5, 128))
    wanted: Wanted = {"sigmoid": {"": spec}, "linear": {"input": SharedSpec(Site("", "sigmoid"))}}
    module = case(lambda f, x: f(x.sigmoid()), linear(), **wanted).quantized()
    assert ops(module)["quantize_per_tensor"] == 1


@pytest.mark.parametrize(("make", "message"), [
    (lambda: FixedQParams(0.0), "number-range: scale"),
    (lambda: FixedQParams(float("inf")), "number-range: scale"),
    (lambda: FixedQParams("a"), "number-range: scale"),  # type: ignore[arg-type]
    (lambda: replace(ACT, eps=0.0), "number-range: eps"),
    (lambda: replace(WEIGHT, axis=1, group=32), "number-range: group"),
    (lambda: replace(ACT, may_group=True), "number-range: may_group"),
    (lambda: replace(ACT, eps=float("inf")), "number-range: eps"),
    (lambda: replace(ACT, eps=float("nan")), "number-range: eps"),
    (lambda: replace(WEIGHT, quant_min=0, observer="weight_mse"), "spec-observer: weight_mse"),
    (lambda: FixedQParams(1.0, 300)(ACT, "here"), "number-range: here"),
    (lambda: FixedQParams(1.0)(WEIGHT, "here"), "per-tensor: here"),
])  # fmt: skip
def test_qparams_that_cannot_be(make: Callable[[], object], message: str) -> None:
    with refused(message, SpecError):
        make()


# -- derived ------------------------------------------------------------------------------------


def biased(axis: int | None, weight: QuantSpec = WEIGHT) -> dict[str, Spec]:
    sources = (Site("", "linear", "input"), Site("", "linear", "weight"))
    bias = replace(S32, axis=axis, observer=DerivedFrom(sources))
    return {"input": ACT, "weight": weight, "bias": bias}


def test_a_bias_has_the_scale_of_the_integer_product() -> None:
    layer = linear()
    module = case(lambda f, x: f(x), layer, linear=biased(0)).quantized()
    tensors = {name.rpartition(".")[2]: value for name, value in module.state_dict().items()}
    scale_x = next(n.args[1] for n in module.graph.nodes if quantizes(n))
    assert torch.allclose(tensors["bias_scale"], scale_x * tensors["weight_scale"])
    assert tensors["bias_s32"].dtype == torch.int32
    assert torch.equal(tensors["bias_s32"], (layer.bias / tensors["bias_scale"]).round().int())


def test_a_derived_scale_may_be_per_tensor() -> None:
    weight = QuantSpec(torch.int8, -128, 127, symmetric=True, observer="min_max")
    module = case(lambda f, x: f(x), linear(), linear=biased(None, weight)).quantized()
    assert ops(module)["dequantize_per_tensor"] == 3


def test_one_scale_a_channel_does_not_fit_a_per_tensor_spec() -> None:
    with refused("derived-axis", SpecError, site="layers.0 (linear).bias", says="spec 's32"):
        case(lambda f, x: f(x), linear(), linear=biased(None)).quantized()


def test_a_source_may_come_later_in_the_graph() -> None:
    later = QuantSpec(torch.uint8, 0, 255, observer=DerivedFrom((Site("", "linear_1", "input"),)))
    wanted: Wanted = {"linear": {"input": later}, "linear_1": {"input": ACT}}
    module = case(lambda f, g, x: g(f(x)), linear(), linear(), **wanted).quantized()
    first, second = (n for n in module.graph.nodes if quantizes(n))
    assert first.args[1] == second.args[1]
    assert first.args[2] == 0  # the rule of products: zero point 0


def test_a_cycle_of_derived_specs_is_refused() -> None:
    def derived(node: str) -> QuantSpec:
        return QuantSpec(torch.uint8, 0, 255, observer=DerivedFrom((Site("", node, "input"),)))

    both: Wanted = {
        "linear": {"input": derived("linear_1")},
        "linear_1": {"input": derived("linear")},
    }
    with refused("derived-circle", SpecError):
        case(lambda f, g, x: g(f(x)), linear(), linear(), **both).prepared()
    with refused("derived-circle", SpecError):
        case(lambda f, x: f(x), linear(), linear={"input": derived("linear")}).prepared()


def test_a_source_that_nothing_quantizes_is_named() -> None:
    wanted: Wanted = {
        "linear": {
            "input": QuantSpec(
                torch.uint8, 0, 255, observer=DerivedFrom((Site("", "linear", "weight"),))
            )
        }
    }
    with refused("unknown-name", SpecError, site="linear.weight"):
        case(lambda f, x: f(x), linear(), **wanted).prepared()


# -- shared -------------------------------------------------------------------------------------


def shared(node: str, slot: str = "") -> SharedSpec:
    return SharedSpec(Site("", node, slot))


def test_sharing_is_transitive_and_its_anchor_may_come_later() -> None:
    wanted: Wanted = {"relu": {"": shared("tanh")}, "tanh": {"self": ACT, "": shared("relu")}}
    module = case(lambda x: x.relu().tanh(), **wanted).prepared()
    names = {str(n.target) for n in module.graph.nodes if n.op == "call_module"}
    assert len(names) == 1


def test_a_cycle_that_nothing_quantizes_is_refused() -> None:
    wanted: Wanted = {"relu": {"": shared("tanh")}, "tanh": {"": shared("relu")}}
    with refused("nothing-to-share", ShareConflict, site="relu"):
        case(lambda x: x.relu().tanh(), **wanted).prepared()


def test_a_misspelt_site_is_named_with_the_nearest() -> None:
    wanted: Wanted = {"linear": {"input": shared("tanhh")}}
    with refused("unknown-name", ShareConflict, site="linear.input", says=r"'tanhh'.*'tanh'\?\)"):
        case(lambda f, x: f(x.tanh()), linear(), **wanted).prepared()


def test_the_share_pass_settles_references_and_is_idempotent() -> None:
    wanted: Wanted = {"relu": {"": shared("linear", "input")}, "linear": {"input": ACT}}
    prepared = case(lambda f, x: f(x.relu()), linear(), **wanted).prepared()
    node = next(n for n in prepared.graph.nodes if n.name == "relu")
    annotation = annotation_of(node)
    assert annotation is not None
    assert annotation.output == ACT
    assert annotation.shares == (("", Site("", "linear", "input")),)
