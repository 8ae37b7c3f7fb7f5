"""X86InductorQuantizer and XPUInductorQuantizer: configs, and which observers are one object."""

from __future__ import annotations

import warnings
from typing import Any, TypeAlias

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from quantfx import QuantfxWarning, compat
from quantfx.compat.terms.specs import ANNOTATION_KEY
from quantfx.passes.graph.graphs import attribute
from tests.compat.sample import DQ, Q, aten, count, export, find, observer, x86
from tests.models.small import cat_pool_net, mlp, residual_block
from tests.refusals import refused, warned

GENERATOR = torch.Generator().manual_seed(0)
STATIC = compat.get_default_x86_inductor_quantization_config()
DYNAMIC = compat.get_default_x86_inductor_quantization_config(is_dynamic=True)
QAT = compat.get_default_x86_inductor_quantization_config(is_qat=True)


class Three(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.body = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
        self.last = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(F.relu(self.body(self.first(x))))
        return y


X = torch.randn(2, 8, generator=GENERATOR)


def quantized(quantizer: compat.Quantizer) -> list[bool]:
    """Say which of the three linears of `Three` read an observer."""
    prepared = compat.prepare_pt2e(export(Three(), X), quantizer)
    return [
        any(n.op == "call_module" for n in linear.all_input_nodes)
        for linear in find(prepared, aten.linear.default)
    ]


def test_module_names_go_before_operators_and_those_before_the_global_config() -> None:
    new = compat.X86InductorQuantizer
    assert quantized(new()) == [False, False, False]
    assert quantized(new().set_global(STATIC)) == [True, True, True]
    assert quantized(new().set_module_name_qconfig("body", STATIC)) == [False, True, False]
    mixed = new().set_module_name_qconfig("body", None).set_module_type_qconfig(nn.Linear, STATIC)
    assert quantized(mixed) == [True, False, True]
    mixed = new().set_module_name_qconfig("last", STATIC)
    assert quantized(mixed.set_function_type_qconfig(F.linear, None)) == [False, False, True]
    assert quantized(new().set_global(STATIC).set_module_name_qconfig("body.0", None)) == [
        True,
        False,
        True,
    ]


def test_a_match_lies_in_the_module_as_a_whole_or_shrinks() -> None:
    """The ReLU of ``body`` is inside, that behind it is not."""
    quantizer = compat.X86InductorQuantizer().set_module_name_qconfig("body", STATIC)
    prepared = compat.prepare_pt2e(export(Three(), X), quantizer)
    notes = [node.meta.get(ANNOTATION_KEY) for node in find(prepared, aten.relu.default)]
    assert [note is not None and note._is_output_of_quantized_pattern for note in notes] == [
        True,
        False,
    ]


def test_matmul_is_quantized_on_request() -> None:
    class Product(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return torch.matmul(x, y)

    for request, expected in ((False, 0), (True, 2)):
        quantizer = x86()
        if request:
            quantizer.set_function_type_qconfig(
                torch.matmul, quantizer.get_global_quantization_config()
            )
        prepared = compat.prepare_pt2e(export(Product(), X, X.T.clone()), quantizer)
        prepared(X, X.T)
        assert count(compat.convert_pt2e(prepared), Q) == expected


def test_none_keeps_a_pool_float_although_int8_flows_in() -> None:
    quantizer = x86().set_function_type_qconfig(F.max_pool2d, None)
    x = torch.randn(1, 3, 8, 8)
    prepared = compat.prepare_pt2e(export(cat_pool_net(), x), quantizer)
    pool = find(prepared, aten.max_pool2d.default)[0]
    assert all(node.op != "call_module" for node in (*pool.all_input_nodes, *pool.users))


def test_mixed_modes_are_warned_about_and_ignored() -> None:
    quantizer = compat.X86InductorQuantizer().set_module_name_qconfig("first", STATIC)
    with pytest.warns(UserWarning, match="Mixed dynamic and static"):
        quantizer.set_module_name_qconfig("last", DYNAMIC)
    with pytest.warns(UserWarning, match="Mixed QAT and Non-QAT"):
        quantizer.set_global(QAT)
    with pytest.warns(UserWarning, match="has no quantized kernel"):
        quantizer.set_module_type_qconfig(nn.LSTM, STATIC)
    with pytest.warns(UserWarning, match="no global config was set"):
        assert quantizer.get_global_quantization_config() is None
    assert quantized(quantizer) == [True, False, False]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        half = compat.get_x86_inductor_linear_dynamic_fp16_config()
        compat.X86InductorQuantizer().set_global(STATIC).set_module_type_qconfig(nn.Linear, half)


def test_the_default_configs() -> None:
    assert STATIC.input_activation is not None
    assert (STATIC.input_activation.quant_min, STATIC.input_activation.quant_max) == (0, 255)
    narrow = compat.get_default_x86_inductor_quantization_config(reduce_range=True)
    assert narrow.input_activation is not None
    assert narrow.input_activation.quant_max == 127
    assert compat.get_default_x86_inductor_quantization_config() is STATIC
    assert QAT.is_qat
    assert QAT.weight is not None
    assert "FakeQuant" in str(QAT.weight.observer_or_fake_quant_ctr)


def test_a_quantizer_leaves_nothing_of_ours_behind() -> None:
    model = export(Three(), X)
    x86().annotate(model)
    assert all("quantfx" not in node.meta for node in model.graph.nodes)
    composed = compat.ComposableQuantizer([x86(), x86()])
    composed.annotate(model)
    composed.validate(model)


# (operator, observers in front of each tensor argument, observers behind): as torchao 0.18 sets
# them for XPUInductorQuantizer, numbered by first appearance; recorded, because importing its
# quantizer changes Inductor's configuration.
Row: TypeAlias = tuple[str, tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]
RECORDED: dict[str, list[Row]] = {
    "residual_block": [
        ("conv2d.default", ((0,), (1,), ()), ()),
        ("relu_.default", ((),), ((2,),)),
        ("conv2d.default", ((2,), (3,), ()), ()),
        ("add_.Tensor", ((), (0,)), ()),
        ("relu_.default", ((),), ()),
    ],
    "cat_pool_net": [
        ("conv2d.default", ((0,), (1,), ()), ()),
        ("relu.default", ((),), ()),
        ("max_pool2d.default", ((),), ()),
        ("conv2d.default", ((0,), (2,), ()), ((3,),)),
        ("avg_pool2d.default", ((3,),), ((3,),)),
        ("cat.default", ((), (3,)), ((4,),)),
        ("conv2d.default", ((4,), (5,), ()), ()),
        ("relu.default", ((),), ((6,),)),
        ("adaptive_avg_pool2d.default", ((6,),), ((6,),)),
        ("flatten.using_ints", ((6,),), ((6,),)),
        ("linear.default", ((6,), (7,), ()), ()),
    ],
    "mlp": [
        ("linear.default", ((0,), (1,), ()), ()),
        ("relu.default", ((),), ((2,),)),
        ("linear.default", ((2,), (3,), ()), ()),
    ],
}
MODELS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "residual_block": (residual_block, (1, 4, 8, 8)),
    "cat_pool_net": (cat_pool_net, (1, 3, 8, 8)),
    "mlp": (mlp, (1, 8)),
}


def rows(module: GraphModule) -> list[Row]:
    numbers: dict[nn.Module, int] = {}

    def chain(node: Node) -> tuple[int, ...]:
        found: list[int] = []
        while node.op == "call_module":
            seen = observer(module, node)
            found.append(numbers.setdefault(seen, len(numbers)))
            node = node.all_input_nodes[0]
        return tuple(found)

    result: list[Row] = []
    for node in module.graph.nodes:
        if node.op == "call_function":
            name = str(node.target).removeprefix("aten.")
            inputs = tuple(chain(n) for n in node.all_input_nodes)
            behind = tuple(chain(n) for n in node.users if n.op == "call_module")
            result.append((name, inputs, behind))
    return result


@pytest.mark.parametrize("name", MODELS)
def test_xpu_shares_observers_as_recorded(name: str) -> None:
    make, shape = MODELS[name]
    config = compat.get_default_xpu_inductor_quantization_config()
    quantizer = compat.XPUInductorQuantizer().set_global(config)
    x = torch.randn(shape, generator=GENERATOR)
    prepared = compat.prepare_pt2e(export(make(), x), quantizer)
    assert rows(prepared) == RECORDED[name]
    prepared(x)
    module = compat.convert_pt2e(prepared)
    assert {(n.args[3], n.args[4], n.args[5]) for n in find(module, DQ)} == {
        (-128, 127, torch.int8)
    }


def test_xpu_is_x86_less_max_pooling_and_training() -> None:
    left = {"annotate-max-pool", "annotate-conv-bn"}
    kept = set(compat.X86InductorQuantizer.passes.names) - left
    assert set(compat.XPUInductorQuantizer.passes.names) == kept
    left_out = set(compat.X86InductorQuantizer.patterns.names) - set(
        compat.XPUInductorQuantizer.patterns.names
    )
    assert left_out == {"max_pool2d"}


def test_lowering_ends_in_onednn_operators() -> None:
    x = torch.randn(1, 4, 8, 8, generator=GENERATOR)
    # Something in front of the block: without a compiler, oneDNN adds to its own results only.
    model = nn.Sequential(nn.Conv2d(4, 4, 1), residual_block())
    config = compat.get_default_x86_inductor_quantization_config(reduce_range=True)
    quantizer = compat.X86InductorQuantizer().set_global(config)
    prepared = compat.prepare_pt2e(export(model, x), quantizer)  # right on every CPU
    prepared(x)
    module = compat.convert_pt2e(prepared)
    with warnings.catch_warnings():
        warnings.simplefilter("error", QuantfxWarning)
        lowered = compat.lower_pt2e_quantized_to_x86(module, (x,))
    onednn = torch.ops.onednn
    found = [count(lowered, onednn.qconv_pointwise.default)]
    found.append(count(lowered, onednn.qconv2d_pointwise.binary))
    assert found == [2, 1]
    assert count(module, Q) > 0, "the quantized model is not changed"
    assert attribute(module, "_frozen_param0") is not None
    torch.testing.assert_close(lowered(x), module(x), rtol=0.1, atol=0.1)
    with refused("not-a-graph", ValueError):
        compat.lower_pt2e_quantized_to_x86(model, (x,))  # type: ignore[arg-type]  # the mistake


def test_lowering_warns_where_sums_saturate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    x = torch.randn(2, 8, generator=GENERATOR)
    prepared = compat.prepare_pt2e(export(nn.Sequential(nn.Linear(8, 8)), x), x86())
    prepared(x)
    with warned("saturates", fix="reduce_range=True"):
        compat.lower_pt2e_quantized_to_x86(compat.convert_pt2e(prepared), (x,))
