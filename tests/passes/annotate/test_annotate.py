"""What a config decides about matches and tensors, as the annotate passes see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from quantfx import Config, backends
from quantfx.backends.x86 import pattern_set, x86
from quantfx.passes.annotate.annotate import GROUPS
from quantfx.passes.config.recipe import Recipe
from quantfx.passes.errors import ConfigError, ShareConflict
from quantfx.passes.graph.graphs import Site
from quantfx.passes.observe.calibrate import calibrate
from quantfx.passes.observers.derived import DerivedFrom
from quantfx.passes.quant.annotation import Annotation, annotation_of
from quantfx.passes.quant.qdq import dequantizes
from quantfx.passes.quant.spec import QuantSpec
from quantfx.passes.report.contract import count_uncovered, find_skipped
from quantfx.patterns.loader import load
from quantfx.tools.models.mobilenet_v2 import STAGES, mobilenet_v2
from quantfx.tools.models.seeded import seeded
from tests.export_cases import Net
from tests.models.small import cat_pool_net, mlp
from tests.refusals import refused
from tests.unchecked import capture

VOCABULARY = Path(__file__).parents[3] / "patterns" / "sets" / "vocabulary.toml"
ROWS = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
IMAGE = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
CAT_POOL = capture(cat_pool_net(), (IMAGE,))
MLP = capture(mlp(), (ROWS,))


def shared(graph: GraphModule, config: Config) -> GraphModule:
    backend = x86().with_config(config)
    return backend.prepare_pipeline.upto("share").run(graph, backend.context)


def annotated(graph: GraphModule, config: Config) -> Mapping[str, Annotation]:
    nodes = shared(graph, config).graph.nodes
    return {node.name: a for node in nodes if (a := annotation_of(node)) is not None}


def reasons(graph: GraphModule, config: Config) -> Mapping[str, str]:
    recipe = replace(x86().recipe, config=config)
    return {r.node: r.message for r in find_skipped(shared(graph, config), recipe)}


def spec(graph: GraphModule, config: Config, node: str, slot: str) -> str:
    return str(dict(annotated(graph, config)[node].inputs)[slot])


@pytest.mark.parametrize(
    ("mode", "templates", "inputs"),
    [
        ("static", ["linear_unary", "linear"], ["input", "weight"]),
        ("dynamic", ["linear_dynamic_unary", "linear_dynamic"], ["input", "weight"]),
        ("fp16", ["linear_relu_fp16", "linear_fp16"], ["weight"]),
        ("weight-only", ["linear_weight_only", "linear_weight_only"], ["weight"]),
    ],
)
def test_each_mode_has_its_templates(mode: str, templates: list[str], inputs: list[str]) -> None:
    found = annotated(MLP, Config.of(mode))
    linears = [found["linear"], found["linear_1"]]
    assert [each.template for each in linears] == templates
    assert [each.mode for each in linears] == [mode, mode]
    assert [slot for slot, _ in linears[0].inputs] == inputs


def test_a_linear_with_an_add_is_one_dynamic_match() -> None:
    model = Net(lambda fc, x: torch.relu(fc(x) + x), nn.Linear(8, 8)).eval()
    found = annotated(capture(model, (ROWS,)), Config("dynamic"))
    assert {a.template for a in found.values()} == {"linear_add_dynamic_relu"}
    assert found["add"].inputs == (), "the summand stays float"


def test_operators_without_a_template_of_the_mode_say_which_they_have() -> None:
    why = reasons(CAT_POOL, Config("dynamic"))
    assert why["conv2d"] == "no dynamic template takes conv2d, only static (the config's default)"
    assert "module='left'" in reasons(CAT_POOL, Config().module("left", "fp16"))["conv2d"]


# Every pair of ranks, the weaker rule given last: the stronger decides nevertheless.
STRONGEST_FIRST = (
    lambda config, mode: config.call("linear", mode),
    lambda config, mode: config.module("0", mode),
    lambda config, mode: config.module("[0]", mode),
    lambda config, mode: config.op("linear", mode),
)


@pytest.mark.parametrize("strong", range(len(STRONGEST_FIRST)))
@pytest.mark.parametrize("weak", range(len(STRONGEST_FIRST)))
@pytest.mark.filterwarnings("ignore::quantfx.QuantfxWarning")
def test_priority(strong: int, weak: int) -> None:
    config = STRONGEST_FIRST[weak](STRONGEST_FIRST[strong](Config("static"), "dynamic"), "fp16")
    wanted = "dynamic" if strong < weak else "fp16"  # of equals the later decides
    assert annotated(MLP, config)["linear"].mode == wanted


@pytest.mark.filterwarnings("ignore::quantfx.QuantfxWarning")
def test_equals_and_the_default() -> None:
    config = Config(None).type("Linear", "dynamic").op("linear", "fp16")
    assert annotated(MLP, config)["linear"].mode == "fp16"
    where = config.call("linear", "static").where(lambda node: node.name == "linear", "dynamic")
    assert annotated(MLP, where)["linear"].mode == "dynamic"
    assert annotated(MLP, Config(None)) == {}
    assert reasons(MLP, Config(None))["linear"] == "kept float: the config's default"


def test_what_a_rule_keeps_float_is_reported_with_the_rule() -> None:
    why = reasons(CAT_POOL, Config().module("join", None).call("linear", None))
    assert why["conv2d_2"] == "kept float: rule module='join'"
    assert why["linear"] == "kept float: rule call='linear'"


def test_a_float_activation_function_leaves_the_smaller_match() -> None:
    assert annotated(MLP, Config().op("relu", None))["linear"].template == "linear"
    alone = annotated(MLP, Config(None).op("linear", "static"))
    assert alone["linear"].template == "linear_unary", "a default says nothing about relu"


def test_a_float_summand_leaves_the_smaller_match() -> None:
    model = Net(lambda c, x: c(x) + x.tanh(), nn.Conv2d(3, 3, 1)).eval()
    graph = capture(model, (IMAGE,))
    assert annotated(graph, Config())["conv2d"].template == "conv2d_add"
    kept = Config().tensor("add.other", None)
    assert annotated(graph, kept)["conv2d"].template == "conv2d"


def test_a_float_tensor_withdraws_the_matches_that_need_it() -> None:
    config = Config().tensor("linear_1.input", None)
    assert "linear_1" not in annotated(MLP, config)
    assert reasons(MLP, config)["linear_1"] == (
        "linear_1.input is kept float: rule tensor='linear_1.input'"
    )
    assert annotated(MLP, Config("weight-only").tensor("*.input", None))["linear"].mode == (
        "weight-only"
    )
    per_module = reasons(MLP, Config().module("0", activations=None))
    assert per_module["linear"] == "linear.input is kept float: rule module='0'"


def test_matmul_on_request() -> None:
    graph = capture(Net(lambda fc, x: fc(x) @ x.t(), nn.Linear(8, 8)).eval(), (ROWS,))
    assert reasons(graph, Config())["matmul"] == (
        "quantized on request only: select it, config.op('matmul', 'static')"
    )
    for config in (Config().op("matmul", "static"), Config().call("matmul", "static")):
        assert annotated(graph, config)["matmul"].template == "matmul"


def test_changes_of_specs_add_up_by_rank() -> None:
    config = (
        Config()
        .tensor("linear.input", observer="histogram")
        .module("0", activations={"symmetric": True, "observer": "min_max"})
        .activations(quant_max=127, observer="moving_average")
    )
    inputs = dict(annotated(MLP, config)["linear"].inputs)["input"]
    assert isinstance(inputs, QuantSpec)
    assert str(inputs) == "u8[0,127] symmetric"
    assert inputs.observer == "histogram"
    other = dict(annotated(MLP, config)["linear_1"].inputs)["input"]
    assert isinstance(other, QuantSpec)
    assert (other.symmetric, other.quant_max, other.observer) == (False, 127, "moving_average")


def test_activations_and_weights_are_told_apart() -> None:
    config = Config().op("linear", weights={"symmetric": True, "quant_min": -127})
    assert spec(MLP, config, "linear", "weight") == "s8[-127,127] symmetric per-channel(0)"
    assert spec(MLP, config, "linear", "input") == "u8[0,255] affine"
    named = Config().op("linear", act={"dtype": "uint8", "quant_max": 127})
    assert spec(MLP, named, "linear", "input") == "u8[0,127] affine"
    # A cast has no range: what is said of all weights passes it by, what names it does not.
    assert spec(MLP, Config("fp16").weights(observer="min_max"), "linear", "weight") == "f16 cast"
    with refused("no-integers", ConfigError, site="f16 cast", says=r"linear\.weight"):
        annotated(MLP, Config("fp16").tensor("linear.weight", observer="min_max"))


def test_a_change_that_does_not_fit_names_rule_and_tensor() -> None:
    config = Config().module("0", weights={"observer": "histogram"})
    site = "rule module='0': histogram"
    with refused("spec-observer", ConfigError, site=site, says=r"linear\.weight"):
        annotated(MLP, config)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Config().activations(dtype="int8"), "kernel-spec: linear.input"),
        (Config().op("linear", act={"dtype": "int32"}), "kernel-spec: linear.input"),
        (Config().op("linear", "dynamic", dynamic_act={"dtype": "int8"}), "kernel-spec: linear.input"),
        (Config().weights(symmetric=False, observer="min_max"), "kernel-spec: linear.weight"),
    ],
)  # fmt: skip
def test_a_change_keeps_what_kernels_take(config: Config, message: str) -> None:
    with refused(message, ConfigError) as error:
        annotated(MLP, config)
    assert "use backend.with_specs(...) for graphs that are not compiled" in str(error.value)


def test_a_dynamic_spec_has_no_observer_to_change() -> None:
    dynamic = Config("dynamic")
    for config in (
        dynamic.tensor("linear.input", eps=1.0),
        dynamic.module("0", activations={"observer": "min_max"}),
    ):
        with refused("no-observer", ConfigError, site="u8[0,255] affine dynamic"):
            annotated(MLP, config)
    whole = dynamic.activations(observer="min_max", quant_max=127).module("2", "static")
    assert spec(MLP, whole, "linear", "input") == "u8[0,127] affine dynamic"
    static = dict(annotated(MLP, whole)["linear_1"].inputs)["input"]
    assert isinstance(static, QuantSpec)
    assert static.observer == "min_max"


def test_tensors_that_must_share_refuse_different_specs_by_name() -> None:
    with refused("share-conflict", ShareConflict, site="cat.tensors.1", says=r"cat\.tensors\.0"):
        annotated(CAT_POOL, Config().tensor("cat.tensors.0", symmetric=True))


def test_int8_does_not_flow_out_of_a_dynamic_linear() -> None:
    model = Net(lambda fc, x: fc(torch.cat([fc(x), fc(x)])), nn.Linear(8, 8)).eval()
    why = reasons(capture(model, (ROWS,)), Config().type(nn.Linear, "dynamic"))
    assert why["cat"] == "its input linear is float: dynamic kernels yield no int8"


def test_unsupported_operators_are_reported_with_their_reason() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.gru = nn.LSTM(8, 8), nn.GRU(8, 8)
            self.up, self.fc = nn.ConvTranspose1d(8, 8, 2), nn.Linear(9, 4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.gru(self.lstm(x)[0])[0]
            return self.fc(self.up(y.unsqueeze(2).transpose(1, 2).reshape(-1, 8, 8)))

    graph = capture(seeded(Recurrent), (torch.randn(8, 1, 8),))
    assert "transposed convolutions" in reasons(graph, Config())["conv_transpose1d"]
    why = reasons(graph, Config("weight-only"))
    assert "no weight-only template takes lstm, only dynamic, static" in why["lstm"]
    assert not {"aten.lstm.input", "aten.gru.input"} & set(count_uncovered(graph, x86().recipe))


BIAS = f"""
schema = 1
vocabulary = "{VOCABULARY}"
[template.linear]
group = "linear"
nodes.linear = {{ op = "linear", input = "$x", weight = "$w", bias = "$b" }}
check = ["constant(w)", "constant(b)"]
quant = {{ x = "act", w = "weight", b = "bias(x, w)" }}
"""


def test_derived_specs_know_their_sites(tmp_path: Path) -> None:
    (tmp_path / "bias.toml").write_text(BIAS, encoding="utf-8")
    weight = QuantSpec(torch.int8, -128, 127, symmetric=True, axis=0, observer="min_max")
    specs = {
        "act": QuantSpec(torch.uint8, 0, 255, observer="min_max"),
        "weight": weight,
        "bias": QuantSpec(torch.int32, -(2**31), 2**31 - 1, symmetric=True, axis=0,
                          observer="min_max"),
    }  # fmt: skip
    recipe = Recipe("mine", load(tmp_path / "bias.toml"), tuple(specs.items()))
    backend = replace(x86(), recipe=recipe)
    prepared = backend.prepare(MLP)
    found = next(a for n in prepared.graph.nodes if n.name == "linear" and (a := annotation_of(n)))
    bias = dict(found.inputs)["bias"]
    assert isinstance(bias, QuantSpec)
    assert bias.observer == DerivedFrom((Site("", "linear", "input"), Site("", "linear", "weight")))
    calibrate(prepared, [ROWS])
    quantized = backend.convert(prepared)
    assert sum(dequantizes(n) for n in quantized.graph.nodes) == 6
    torch.testing.assert_close(quantized(ROWS), mlp()(ROWS), atol=0.05, rtol=0.05)


def float_nodes(graph: GraphModule, config: Config) -> set[str]:
    return {node for node, why in reasons(graph, config).items() if "kept float: rule" in why}


def test_one_site_float_in_one_line_in_a_mobilenet() -> None:
    model = mobilenet_v2(STAGES[:3], last=32, classes=10)
    graph = capture(model, (torch.randn(1, 3, 32, 32),))
    before, after = (
        annotated(graph, Config()),
        annotated(graph, Config().call("conv2d_3", None)),
    )
    assert "conv2d_3" in before
    assert "conv2d_3" not in after
    convs = {name for name in before if name.startswith("conv2d")}
    assert {name for name in after if name.startswith("conv2d")} == convs - {"conv2d_3"}
    assert "conv2d_3" in float_nodes(graph, Config().call("conv2d_3", None))


def test_a_function_sees_the_node() -> None:
    def wide(node: Node) -> bool:
        value = node.meta.get("val")
        return isinstance(value, Tensor) and value.shape[-1] == 16

    why = reasons(MLP, Config().where(wide, None))
    assert why["linear"].startswith("kept float: rule where=")
    assert "linear_1" not in why


def test_the_groups_are_those_of_the_backends_templates() -> None:
    used = {group for name in backends.NAMES for group in backends.get(name).recipe.patterns.groups}
    trained = backends.get("x86").qat
    assert trained is not None
    used |= trained.recipe(backends.get("x86").recipe).patterns.groups
    used |= pattern_set(plans=True).groups
    assert sorted(used) == sorted(GROUPS)
