"""Templates tried, the config's decision, the match, and the answer in one sentence."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from quantfx import Config, backends
from quantfx.passes.graph.editor import Editor
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.graph_pass import GraphPass
from quantfx.passes.quant.annotation import META_KEY
from tests.passes.report.explain.explained import (
    IMAGE,
    Branches,
    Folded,
    Recurrent,
    Shared,
    TwoReaders,
    WithoutGradients,
    explained,
    folded,
    shared,
)
from tests.unchecked import quantize


def test_near_misses_come_in_order_with_the_first_rule_that_failed() -> None:
    [layer] = explained(TwoReaders, torch.randn(2, 3, 8)).explain("conv")
    assert [(each.by, each.template, each.matched, each.reason) for each in layer.tries] == [
        ("annotate-conv", "conv1d_unary", False, "conv1d has 2 users"),
        ("annotate-conv", "conv1d", True, ""),
    ]
    assert layer.match is not None
    assert layer.match.template == "conv1d"
    [relu] = explained(TwoReaders, torch.randn(2, 3, 8)).explain("relu")
    assert relu.standing == "float"
    assert "only taken as part of a match of" in relu.reason
    assert "directly after" in relu.remedies[0]


def test_operators_of_one_match_know_each_other() -> None:
    [layer] = folded().explain("conv2d")
    [relu] = folded().explain("relu")
    assert layer.match == relu.match
    assert relu.match is not None
    assert relu.match.members == ("conv2d", "relu")
    assert relu.verdict.startswith("int8 as a part of conv2d by template conv2d_unary")
    assert layer.code is not None
    assert layer.code.text == "x = F.relu(self.norm(self.conv(x)))"
    assert layer.code.file.endswith("explained.py")


def test_a_rule_that_keeps_float() -> None:
    config = Config().module("conv", None)
    [layer] = explained(Folded, config=config).explain("conv")
    assert layer.standing == "float"
    assert layer.decision is not None
    assert (layer.decision.mode, layer.decision.rule) == ("float", "module='conv'")
    assert layer.tries == ()
    assert layer.remedies == ("change rule module='conv' of the config",)
    [head] = explained(Folded, config=config).explain("head")
    assert head.decision is not None
    assert (head.decision.mode, head.decision.rule) == ("static", "")


def test_regions_without_gradients_are_seen() -> None:
    result = explained(WithoutGradients, torch.randn(2, 8))
    assert [each.standing for each in result.explain("*") if each.op == "aten.linear.default"] == [
        "quantized",
        "quantized",
    ]
    assert [each.site for each in result.explain("first")] == ["linear"]


def test_graphs_of_control_flow() -> None:
    result = explained(Branches, torch.ones(2, 8))
    [layer] = result.explain("true_graph_0/linear")
    assert (layer.graph, layer.node, layer.standing) == ("true_graph_0", "linear", "quantized")
    assert layer.tensors[0].reads == "true_graph_0/x"
    assert [each.members for each in layer.sharing] == [
        ("true_graph_0/linear.input", "false_graph_0/linear.input")
    ]


def test_a_module_inside_control_flow_means_the_operator_that_has_its_weight() -> None:
    model = Branches()
    path = next(name for name, each in model.named_modules() if isinstance(each, torch.nn.Linear))
    result = explained(Branches, torch.ones(2, 8))
    assert [each.node for each in result.explain(path)] == ["linear"]
    assert all(each.graph for each in result.explain(path))


def test_a_template_that_is_missing_is_what_would_help() -> None:
    backend = backends.get("x86", kernels="onednn").without_templates("conv2d")
    [layer] = quantize(Folded().eval(), IMAGE, backend=backend, strict=False).explain("conv2d")
    assert layer.standing == "float"
    assert "no template of the backend takes it with relu there" in layer.remedies[0]


@dataclass(frozen=True)
class Forget(GraphPass):
    """Loses what was planned."""

    name: ClassVar[str] = "forget"

    def rewrite(self, editor: Editor, context: Context) -> int:
        return sum(node.meta.pop(META_KEY, None) is not None for node in editor.graph.nodes)


def test_a_match_that_a_pass_lost_is_the_reason() -> None:
    backend = backends.get("x86", kernels="onednn")
    pipeline = backend.prepare_pipeline.after("annotate-conv", Forget())
    backend = replace(backend, prepare_pipeline=pipeline)
    result = quantize(Shared().eval(), IMAGE, backend=backend, strict=False)
    [layer] = result.explain("last")
    assert layer.tries[-1].matched
    assert layer.reason == "conv2d matched, and a pass lost the match"
    assert layer.remedies == ()


def test_a_native_lstm() -> None:
    result = explained(Recurrent, torch.randn(3, 2, 4), backend="native", config="dynamic")
    [layer] = [each for each in result.explain("rnn") if each.match is not None]
    assert layer.match is not None
    assert (layer.match.template, layer.match.mode) == ("lstm_dynamic", "dynamic")
    assert layer.verdict.startswith("int8 (ranges found in each call) by template lstm_dynamic")
    [weight] = layer.tensors
    assert (weight.slot, weight.spec_name, weight.qparams) == ("w", "rnn_weight", None)
    assert "its kernel quantizes" in weight.reason
    zeros = result.explain("zeros")[0]
    assert (zeros.standing, zeros.reason, zeros.idle) == ("float", "it reads no tensor", True)


def test_what_is_no_operator_is_named() -> None:
    kinds = {each.site: each for each in folded().explanations()}
    assert kinds["x"].verdict == "input of the graph"
    assert kinds["output"].kind == "output"
    assert kinds["conv_weight_s8"].verdict == (
        "stored tensor 'conv.weight_s8', made by fold-weights, for conv2d"
    )
    quantize = kinds["quantize_per_tensor_default"]
    assert (quantize.kind, quantize.standing) == ("made", "other")
    assert quantize.verdict == "made by insert-qdq, it reads x, for conv2d"


def test_operators_that_nothing_takes_say_what_would_help() -> None:
    [mean] = folded().explain("mean")
    assert mean.verdict == "float: no template takes it"
    assert mean.remedies == ("give the backend a template and a kernel for it",)


def test_every_name_is_explained_once() -> None:
    for result in (folded(), shared(), explained(Folded, IMAGE)):
        sites = [each.site for each in result.explanations()]
        assert len(sites) == len(set(sites))
        names = {node.name for node in result.quantized.graph.nodes}
        assert names <= set(sites)
        planned = {str(each.site) for each in result.report.sites}
        quantized = {each.match.anchor for each in result.explanations() if each.match is not None}
        assert quantized == planned
