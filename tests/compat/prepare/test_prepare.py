"""What users see after prepare_pt2e: observers, annotations, and a model left as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization.observer import FixedQParamsObserver, MinMaxObserver
from torch.fx import GraphModule, Node, symbolic_trace

from quantfx import compat
from quantfx.compat.terms.errors import ForeignError, as_raised
from quantfx.compat.terms.specs import ANNOTATION_KEY
from quantfx.passes.errors import AnnotationError, ArgumentError
from tests.compat.sample import (
    Add,
    ByNode,
    ConvRelu,
    all_inputs,
    aten,
    count,
    export,
    find,
    observer,
    u8,
    x86,
)
from tests.refusals import refused

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_observers_stand_on_the_edges_under_the_known_names() -> None:
    prepared = compat.prepare_pt2e(export(ConvRelu(), X), x86())
    conv = find(prepared, aten.conv2d.default)[0]
    for position in (0, 1):
        node = conv.args[position]
        assert isinstance(node, Node)
        assert node.op == "call_module"
        assert str(node.target).startswith("activation_post_process_")
    weight: Any = observer(prepared, conv.args[1])
    assert weight.qscheme is torch.per_channel_symmetric


def test_spellings_stay_and_guards_go() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dropout = nn.Dropout()

        def forward(self, x: Tensor) -> Tensor:
            x = self.dropout(x * 2)
            return x.add_(1)

    model = export(Net(), X)
    assert count(model, "_guards_fn") == 1
    prepared = compat.prepare_pt2e(model, x86())
    assert count(prepared, aten.add_.Tensor) == count(prepared, aten.dropout.default) == 1
    assert count(prepared, "_guards_fn") == 0


def test_shared_specs_share_the_observer_whatever_comes_first() -> None:
    def annotation(node: Node) -> compat.QuantizationAnnotation | None:
        if node.target is not aten.add.Tensor:
            return None
        x, y = node.all_input_nodes
        shared = compat.SharedQuantizationSpec((y, node))
        return compat.QuantizationAnnotation({x: shared, y: u8()}, output_qspec=shared)

    prepared = compat.prepare_pt2e(export(Add(), X, X + 1), ByNode(annotation))
    add = find(prepared, aten.add.Tensor)[0]
    observers = [observer(prepared, n) for n in (*add.args, *add.users)]
    assert observers[0] is observers[1] is observers[2]


@pytest.mark.parametrize("implicit", [True, False])
def test_readers_of_one_tensor_share_unless_told_not_to(implicit: bool) -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return torch.sigmoid(x), torch.tanh(x)

    def annotation(node: Node) -> compat.QuantizationAnnotation | None:
        if node.target not in (aten.sigmoid.default, aten.tanh.default):
            return None
        # A new constructor each time: equal otherwise, which is what decides.
        spec = u8(MinMaxObserver.with_args(eps=2**-12))
        return compat.QuantizationAnnotation(
            {node.all_input_nodes[0]: spec}, allow_implicit_sharing=implicit
        )

    prepared = compat.prepare_pt2e(export(Two(), X), ByNode(annotation))
    sigmoid, tanh = find(prepared, aten.sigmoid.default)[0], find(prepared, aten.tanh.default)[0]
    same = observer(prepared, sigmoid.args[0]) is observer(prepared, tanh.args[0])
    assert same is implicit


def test_one_tensor_in_two_slots_is_one_edge() -> None:
    class Twice(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.matmul(x, x)

    prepared = compat.prepare_pt2e(export(Twice(), X), all_inputs(aten.matmul.default, u8()))
    left, right = find(prepared, aten.matmul.default)[0].args
    assert left is right


def test_the_annotation_is_readable_and_names_nodes_of_its_graph() -> None:
    prepared = compat.prepare_pt2e(export(ConvRelu(), X), x86())
    conv = find(prepared, aten.conv2d.default)[0]
    annotation: Any = conv.meta[ANNOTATION_KEY]
    assert annotation._annotated
    assert {n.name for n in annotation.input_qspec_map} == {"x", "conv_weight"}
    assert all(n.graph is prepared.graph for n in annotation.input_qspec_map)


def test_the_model_is_prepared_in_place_or_left_alone() -> None:
    model = export(ConvRelu(), X)
    compat.prepare_pt2e(model, x86(), inplace=False)
    assert not [n for n in model.graph.nodes if n.op == "call_module" and n.target != "_guards_fn"]
    assert ANNOTATION_KEY not in find(model, aten.conv2d.default)[0].meta
    prepared = compat.prepare_pt2e(model, x86())
    assert model.graph is prepared.graph
    conv = find(model, aten.conv2d.default)[0]
    assert observer(model, conv.args[0]) is observer(prepared, conv.args[0])
    torch.testing.assert_close(model(X), prepared(X))


def test_a_failing_quantizer_leaves_the_model_alone_and_raises_its_own_error() -> None:
    def fail(node: Node) -> None:
        node.meta["mark"] = 1
        raise KeyError("mine")

    model = export(ConvRelu(), X)
    with pytest.raises(KeyError, match="mine"):
        compat.prepare_pt2e(model, ByNode(fail))
    assert all("mark" not in node.meta for node in model.graph.nodes)
    with pytest.raises(ForeignError), as_raised():
        raise ForeignError("without a cause", rule="foreign-code")


def test_the_callback_may_replace_a_whole_group() -> None:
    class Fixing(compat.X86InductorQuantizer):
        def prepare_obs_or_fq_callback(
            self, model: GraphModule, edge_or_node_to_obs_or_fq: dict[Any, nn.Module]
        ) -> None:
            for place in edge_or_node_to_obs_or_fq:
                producer, reader = place
                assert producer.graph is reader.graph is model.graph
                if producer.op == "placeholder":
                    made: Any = FixedQParamsObserver
                    edge_or_node_to_obs_or_fq[place] = made(
                        0.5, 3, dtype=torch.uint8, quant_min=0, quant_max=255
                    )

    config = compat.get_default_x86_inductor_quantization_config()
    prepared = compat.prepare_pt2e(export(ConvRelu(), X), Fixing().set_global(config))
    prepared(X)
    converted = compat.convert_pt2e(prepared)
    quantize = find(converted, torch.ops.quantized_decomposed.quantize_per_tensor.default)[0]
    assert quantize.args[1:3] == (0.5, 3)


def test_a_transform_may_return_another_module() -> None:
    class Transforming(compat.X86InductorQuantizer):
        def transform_for_annotation(self, model: GraphModule) -> GraphModule:
            module = torch.export.export(model, (X,)).run_decompositions({}).module()
            assert isinstance(module, GraphModule)
            return module

    config = compat.get_default_x86_inductor_quantization_config()
    model = export(ConvRelu(), X)
    expected = model(X)
    prepared = compat.prepare_pt2e(model, Transforming().set_global(config))
    assert count(prepared, aten.relu_.default) == count(prepared, "_guards_fn") == 0
    torch.testing.assert_close(prepared(X), expected)


def test_a_buffer_that_is_written_to_is_not_observed() -> None:
    class Cache(nn.Module):
        cache: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("cache", torch.zeros(4))

        def forward(self, x: Tensor) -> Tensor:
            return self.cache.index_put_((torch.tensor([1]),), x).clone()

    def annotation(node: Node) -> compat.QuantizationAnnotation | None:
        if node.target is not aten.index_put_.default:
            return None
        cache, value = node.args[0], node.args[2]
        assert isinstance(cache, Node)
        assert isinstance(value, Node)
        shared = compat.SharedQuantizationSpec((cache, node))
        return compat.QuantizationAnnotation({cache: u8(), value: shared}, output_qspec=shared)

    prepared = compat.prepare_pt2e(export(Cache(), torch.ones(1)), ByNode(annotation))
    put = find(prepared, aten.index_put_.default)[0]
    assert isinstance(put.args[0], Node)
    assert put.args[0].op == "get_attr"
    assert observer(prepared, put.args[2]) is observer(prepared, next(iter(put.users)))


def test_what_cannot_be_observed_is_refused() -> None:
    class Scaled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + 6

    def constants(node: Node) -> compat.QuantizationAnnotation | None:
        six: Any = node.args[1] if node.target is aten.add.Tensor else None
        return compat.QuantizationAnnotation({six: u8()}) if six else None

    with refused("no-edge", AnnotationError, site="add", says="6, which"):
        compat.prepare_pt2e(export(Scaled(), X), ByNode(constants))

    class Clamp(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return torch.clamp(x, max=y)

    traced = symbolic_trace(Clamp())
    with refused("keyword-tensor", AnnotationError, site="clamp"):
        compat.prepare_pt2e(traced, all_inputs(torch.clamp, u8()))
    with refused("not-a-spec", AnnotationError, site="'int8'"):
        compat.prepare_pt2e(export(Add(), X, X + 1), all_inputs(aten.add.Tensor, "int8"))
    wide = u8(quant_max=300)
    with refused("number-range", AnnotationError, site="quant_min, quant_max"):
        compat.prepare_pt2e(export(Add(), X, X + 1), all_inputs(aten.add.Tensor, wide))
    with refused("number-range", ValueError, site="quant_min", says="9 is.*quant_max 1"):
        u8(quant_min=9, quant_max=1)
    with refused("number-range", ValueError, site="ch_axis", says="-1 is"):
        u8(ch_axis=-1)
    with refused("not-a-graph", ArgumentError):
        compat.prepare_pt2e(Clamp(), x86())  # type: ignore[arg-type]  # the mistake in question


def test_a_batch_norm_behind_a_wider_linear_stays_with_a_warning() -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(4))
    with pytest.warns(UserWarning, match="Not fusing linear.bn at batch_norm: linear has 3"):
        prepared = compat.prepare_pt2e(export(model, torch.randn(2, 4, 3)), x86())
    assert count(prepared, aten.batch_norm.default) == 1
