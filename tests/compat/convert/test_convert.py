"""What users see after convert_pt2e: the operators, the constants, their meta, and the numbers."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization.fake_quantize import FakeQuantize
from torch.ao.quantization.observer import (
    MinMaxObserver,
    ObserverBase,
    PerChannelMinMaxObserver,
    PlaceholderObserver,
)
from torch.fx import GraphModule, Node

from quantfx import compat
from quantfx.compat.terms.specs import ANNOTATION_KEY
from quantfx.passes.errors import ArgumentError, ObserverError
from quantfx.passes.quant.qdq import CAST, CHOOSE_QPARAMS, DEQUANTIZE_DYNAMIC, QUANTIZE_DYNAMIC
from tests.compat.sample import (
    DQ,
    DQ_CHANNEL,
    Add,
    ByNode,
    ConvRelu,
    Q,
    all_inputs,
    aten,
    count,
    export,
    find,
    sqnr,
    u8,
    x86,
)
from tests.refusals import refused

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
WEIGHT = compat.QuantizationSpec(
    torch.int8,
    PerChannelMinMaxObserver.with_args(eps=2**-12),
    quant_min=-128,
    quant_max=127,
    qscheme=torch.per_channel_symmetric,
    ch_axis=0,
)


def converted(model: nn.Module, quantizer: Any, *inputs: Tensor, **options: Any) -> GraphModule:
    prepared = compat.prepare_pt2e(export(model, *inputs), quantizer)
    prepared(*inputs)
    return compat.convert_pt2e(prepared, **options)


def test_the_operators_and_the_folded_weight() -> None:
    model = ConvRelu()
    module = converted(model, x86(), X)
    assert (count(module, Q), count(module, DQ), count(module, DQ_CHANNEL)) == (1, 1, 1)
    frozen = dict(module.named_buffers())["_frozen_param0"]
    assert frozen.dtype == torch.int8
    assert "conv.weight" not in module.state_dict()
    assert sqnr(model(X), module(X)) > 35


def test_the_result_is_bit_equal_to_the_quantization_formula() -> None:
    model = ConvRelu()
    module = converted(model, x86(), X)
    q = find(module, Q)[0]
    scale, zero_point = q.args[1], q.args[2]
    assert isinstance(scale, float)
    assert isinstance(zero_point, int)
    x = (torch.clamp(torch.round(X * (1.0 / scale)) + zero_point, 0, 255) - zero_point) * scale
    largest = model.conv.weight.detach().abs().amax(dim=(1, 2, 3), keepdim=True)
    step = torch.clamp(largest / 127.5, min=2**-12)
    w = torch.clamp(torch.round(model.conv.weight.detach() * (1 / step)), -128, 127) * step
    expected = torch.relu(torch.conv2d(x, w, model.conv.bias))
    torch.testing.assert_close(module(X), expected, rtol=1e-5, atol=1e-5)


def test_weights_may_stay_float() -> None:
    module = converted(ConvRelu(), x86(), X, fold_quantize=False)
    assert "conv.weight" in module.state_dict()
    assert "_frozen_param0" not in module.code
    assert count(module, torch.ops.quantized_decomposed.quantize_per_channel.default) == 1


def test_arithmetic_before_a_weight_is_folded_and_other_constants_stay() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(8, 4))
            self.shift = nn.Parameter(torch.randn(4, 2))

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(x, self.weight.t()) + self.shift.t()

    x = torch.randn(2, 8)
    module = converted(Net(), x86(), x)
    assert count(module, aten.t.default) == 1
    assert count(module, DQ_CHANNEL) == 1
    assert "_frozen_param0" in module.code


def test_a_buffer_that_the_graph_writes_to_is_not_folded() -> None:
    class Running(nn.Module):
        total: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("total", torch.ones(4))

        def forward(self, x: Tensor) -> Tensor:
            y = self.total + x
            self.total.copy_(y)
            return y

    x = torch.arange(4.0)
    module = converted(Running(), all_inputs(aten.add.Tensor, u8()), x)
    assert (count(module, Q), count(module, DQ)) == (2, 2)
    assert "_frozen_param0" not in module.code
    first = module(x)
    torch.testing.assert_close(module.get_buffer("total"), first)


def test_unannotated_readers_share_a_dequantize_and_annotated_ones_have_their_own() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            y = torch.sigmoid(x)
            return torch.tanh(y), torch.exp(y), y + 1, y + 2

    def annotation(node: Node) -> compat.QuantizationAnnotation | None:
        spec = u8()
        if node.target is aten.sigmoid.default:
            return compat.QuantizationAnnotation(output_qspec=spec)
        if node.target is aten.add.Tensor:
            return compat.QuantizationAnnotation({node.all_input_nodes[0]: spec})
        return None

    module = converted(Net(), ByNode(annotation), X)
    assert (count(module, Q), count(module, DQ)) == (1, 3)
    tanh, exp = find(module, aten.tanh.default)[0], find(module, aten.exp.default)[0]
    assert tanh.args[0] is exp.args[0]


def test_fixed_and_derived_qparams() -> None:
    def annotation(node: Node) -> compat.QuantizationAnnotation | None:
        if node.target is not aten.conv2d.default:
            return None
        x, weight, bias = node.all_input_nodes
        act = compat.FixedQParamsQuantizationSpec(
            torch.uint8, 1 / 32, 128, 0, 255, torch.per_tensor_affine
        )
        derived = compat.DerivedQuantizationSpec(
            derived_from=[(x, node), (weight, node)],
            derive_qparams_fn=product,
            dtype=torch.int32,
            quant_min=-(2**31),
            quant_max=2**31 - 1,
            qscheme=torch.per_channel_symmetric,
            ch_axis=0,
        )
        return compat.QuantizationAnnotation({bias: derived, x: act, weight: WEIGHT})

    def product(observers: list[Any]) -> tuple[Tensor, Tensor]:
        (x_scale, _), (w_scale, zero_point) = (each.calculate_qparams() for each in observers)
        return x_scale * w_scale, zero_point

    model = ConvRelu()
    module = converted(model, ByNode(annotation), X)
    assert find(module, Q)[0].args[1:3] == (1 / 32, 128)
    scales = [module.get_buffer(str(n.args[1].target)) for n in find(module, DQ_CHANNEL)]  # type: ignore[union-attr]  # get_attr nodes
    torch.testing.assert_close(min(scales, key=torch.sum), max(scales, key=torch.sum) / 32)
    assert {str(b.dtype) for b in module.buffers()} >= {"torch.int8", "torch.int32"}
    assert sqnr(model(X), module(X)) > 35


def test_dynamic_ranges() -> None:
    config = compat.get_default_x86_inductor_quantization_config(is_dynamic=True)
    quantizer = compat.X86InductorQuantizer().set_global(config)
    model, x = nn.Sequential(nn.Linear(8, 8)), torch.randn(4, 8)
    # Nothing is calibrated: the weight is all there is to see.
    module = compat.convert_pt2e(compat.prepare_pt2e(export(model, x), quantizer))
    found = [count(module, op) for op in (CHOOSE_QPARAMS, QUANTIZE_DYNAMIC, DEQUANTIZE_DYNAMIC)]
    assert found == [1, 1, 1]
    assert sqnr(model(x), module(x)) > 35


def test_half_precision_weights_keep_both_casts() -> None:
    quantizer = compat.X86InductorQuantizer().set_module_type_qconfig(
        nn.Linear, compat.get_x86_inductor_linear_dynamic_fp16_config()
    )
    model, x = nn.Linear(8, 8), torch.randn(4, 8)
    module = converted(model, quantizer, x)
    assert (count(module, CAST), count(module, Q)) == (2, 0)
    expected = nn.functional.linear(x, model.weight.half().float(), model.bias)
    torch.testing.assert_close(module(x), expected)


def test_other_float_dtypes_come_back_as_they_were() -> None:
    x = X.to(torch.bfloat16)
    module = converted(ConvRelu().to(torch.bfloat16), x86(), x)
    assert find(module, DQ)[0].kwargs == {"out_dtype": torch.bfloat16}
    assert module(x).dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.int16, torch.float8_e4m3fn])
def test_other_quantized_dtypes(dtype: torch.dtype) -> None:
    low, high = (-(2**15), 2**15 - 1) if dtype == torch.int16 else (-448, 448)
    spec = u8(dtype=dtype, quant_min=low, quant_max=high)
    module = converted(Add(), all_inputs(aten.add.Tensor, spec), X, X + 1)
    assert {node.args[-1] for node in find(module, DQ)} == {dtype}
    assert sqnr(X + X + 1, module(X, X + 1)) > 20


def test_fake_quantize_modules_are_observers_too() -> None:
    fake_quantize: Any = FakeQuantize
    made = fake_quantize.with_args(observer=MinMaxObserver)
    module = converted(Add(), all_inputs(aten.add.Tensor, u8(made)), X, X + 1)
    assert count(module, Q) == 2
    assert sqnr(X + X + 1, module(X, X + 1)) > 35


def test_an_observer_that_stays_float_is_removed() -> None:
    spec = compat.QuantizationSpec(torch.float32, PlaceholderObserver)
    prepared = compat.prepare_pt2e(
        export(Add(), X, X + 1), all_inputs(aten.add.Tensor, spec), inplace=False
    )
    assert len(list(prepared.children())) == 2
    module = compat.convert_pt2e(prepared)
    assert (count(module, Q), list(module.children())) == (0, [])
    torch.testing.assert_close(module(X, X + 1), X + X + 1)


class Doubler(ObserverBase):
    """Converts itself, to something of its own."""

    def __init__(self, **_: Any) -> None:
        super().__init__(dtype=torch.int8)

    def forward(self, x: Tensor) -> Tensor:
        return x

    def calculate_qparams(self, **kwargs: Any) -> None:
        raise AssertionError("not asked for")

    def convert(self, model: GraphModule, node: Node) -> None:
        with model.graph.inserting_before(node):
            doubled = model.graph.call_function(aten.mul.Tensor, (node.args[0], 2.0))
        node.replace_all_uses_with(doubled)
        model.graph.erase_node(node)


def test_a_custom_observer_converts_itself() -> None:
    module = converted(Add(), all_inputs(aten.add.Tensor, u8(Doubler)), X, X + 1)
    torch.testing.assert_close(module(X, X + 1), 2 * (X + X + 1))


def test_meta_of_what_was_inserted() -> None:
    def tag(node: Node) -> compat.QuantizationAnnotation | None:
        if node.target is not aten.conv2d.default:
            return None
        x, weight, _ = node.all_input_nodes
        for each in (node, weight):
            each.meta["quantization_tag"] = "conv0"
        return compat.QuantizationAnnotation({x: u8(), weight: WEIGHT}, output_qspec=u8())

    model = export(ConvRelu(), X)
    weight_meta = next(n.meta for n in model.graph.nodes if n.target == "conv.weight")
    prepared = compat.prepare_pt2e(model, ByNode(tag), inplace=False)
    prepared(X)
    module = compat.convert_pt2e(prepared)
    conv = find(module, aten.conv2d.default)[0]
    first, second = find(module, Q)
    tags = [n.meta.get("quantization_tag") for n in (first, *conv.all_input_nodes[:2], second)]
    assert tags == [None, "conv0", "conv0", "conv0"]
    for node in (first, second, *conv.all_input_nodes[:2]):
        assert node.meta["from_node"]
        assert conv.meta["nn_module_stack"] == conv.all_input_nodes[0].meta["nn_module_stack"]
    frozen = next(n for n in module.graph.nodes if n.target == "_frozen_param0")
    assert frozen.meta["quantization_tag"] == "conv0"
    kept = set(frozen.meta) - {"from_node", "quantization_tag"}
    assert all(frozen.meta[key] == weight_meta[key] for key in kept)
    annotation: Any = conv.meta[ANNOTATION_KEY]
    assert set(annotation.input_qspec_map.values()) == {u8(), WEIGHT}


def test_copies_and_edits_between_prepare_and_convert() -> None:
    prepared = compat.prepare_pt2e(export(ConvRelu(), X), x86())
    prepared(X)
    copied = copy.deepcopy(prepared)
    node = find(copied, aten.conv2d.default)[0].all_input_nodes[0]
    node.replace_all_uses_with(node.all_input_nodes[0])
    copied.graph.erase_node(node)
    copied.recompile()
    assert count(compat.convert_pt2e(copied), Q) == 0
    assert count(compat.convert_pt2e(prepared), Q) == 1


def test_the_model_is_converted_in_place_or_left_alone() -> None:
    prepared = compat.prepare_pt2e(export(ConvRelu(), X), x86())
    prepared(X)
    other = compat.convert_pt2e(prepared, inplace=False)
    assert count(prepared, Q) == 0
    compat.convert_pt2e(prepared)
    assert count(prepared, Q) == 1
    torch.testing.assert_close(prepared(X), other(X))


def test_the_result_exports_again() -> None:
    module = converted(ConvRelu(), x86(), X)
    again = torch.export.export(module, (X,)).module()
    torch.testing.assert_close(again(X), module(X))


def test_refused_arguments() -> None:
    prepared = compat.prepare_pt2e(export(ConvRelu(), X), x86())
    with refused("wrong-type", ArgumentError, site="use_reference_representation"):
        compat.convert_pt2e(prepared, "yes")  # type: ignore[arg-type]  # the mistake in question
    with refused("not-offered", ValueError, site="use_reference_representation"):
        compat.convert_pt2e(prepared, use_reference_representation=True)
    spec = u8(PlaceholderObserver, dtype=torch.float32, is_dynamic=True)
    dynamic = compat.prepare_pt2e(export(Add(), X, X + 1), all_inputs(aten.add.Tensor, spec))
    with refused("spec-dtype", ObserverError, site="activation_post_process_0"):
        compat.convert_pt2e(dynamic)
