from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.fx import GraphModule

from quantfx import Config, QuantfxWarning
from quantfx.backends.backend import Backend
from quantfx.backends.x86 import x86
from quantfx.backends.xpu import xpu
from quantfx.passes.annotate.check_config import CheckConfig
from quantfx.passes.errors import ConfigError, PipelineError
from quantfx.passes.graph.remark import RuleRemark
from quantfx.passes.pipeline.record import remarks_of
from tests.export_cases import Net
from tests.models.small import cat_pool_net
from tests.refusals import refused, warned
from tests.unchecked import capture


def graph() -> GraphModule:
    return capture(cat_pool_net(), (torch.randn(2, 3, 16, 16),))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Config().module("lefft", None), "unused-rule: module='lefft'"),
        (Config().module("*.foo", None), "unused-rule: module='*.foo'"),
        (Config().type("Conv2", None), "unused-rule: type='Conv2'"),
        (Config().op("conv3d", None), "unused-rule: op='conv3d'"),
        (Config().call("conv2d_7", None), "unused-rule: call='conv2d_7'"),
        (Config().tensor("linear.inptu", None), "unused-rule: tensor='linear.inptu'"),
        (Config().tensor("linear.bias", None), "unused-rule: tensor='linear.bias'"),
        (Config().tensor("relu*.self", observer="min_max"), "unused-rule: tensor='relu*.self'"),
        (Config().where(lambda _: False, None), "unused-rule"),
        (Config().op("linear", act_={"eps": 1.0}), "unknown-name: rule op='linear': act_"),
        (Config().op("conv2d", "dynamic"), "no-template: op='conv2d'"),
        (Config().call("conv2d_1", "fp16"), "no-template: call='conv2d_1'"),
        (Config().op("relu", "static"), "no-template: op='relu'"),
        (Config().call("flatten", "dynamic"), "no-template: call='flatten'"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_an_error(config: Config, message: str) -> None:
    with refused(message, ConfigError):
        x86().with_config(config).prepare(graph())


def test_all_that_is_wrong_comes_in_one_message_and_before_anything_is_done() -> None:
    module = graph()
    before = str(module.graph)
    config = Config().module("nowhere", None).op("nothing", None).call("conv2d", "static")
    with pytest.raises(ConfigError) as error:
        x86().with_config(config).prepare(module)
    lines = str(error.value).splitlines()
    assert lines[0] == "2 things are wrong in the config:"
    assert lines[1].startswith("  rule module='nowhere' selects nothing")
    assert lines[2].startswith("  rule op='nothing' selects nothing")
    assert lines[3] == "pass strict=False to continue without it"
    assert str(module.graph) == before


def test_without_strict_it_is_a_warning_and_a_row() -> None:
    backend = x86().with_config(Config().module("nowhere", None))
    with warned("unused-rule", site="module='nowhere'"):
        prepared = backend.prepare(graph(), strict=False)
    assert [each.rule for each in remarks_of(prepared, RuleRemark)] == ["module='nowhere'"]


def test_a_rule_that_others_outdo_everywhere_is_a_warning() -> None:
    config = Config().op("linear", "dynamic").module("fc", "static")
    with warned("unused-rule", site="op='linear'"):
        x86().with_config(config).prepare(graph())
    with warnings.catch_warnings():
        warnings.simplefilter("error", QuantfxWarning)
        x86().with_config(Config().op("conv2d", None).module("left", "static")).prepare(graph())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Config().module("fc", conv_weight={"eps": 1.0}), "rule module='fc': conv_weight: changes nothing"),
        (Config().module("fc", "static", dynamic_act={"quant_max": 127}), "module='fc': dynamic_act: changes nothing"),
        (Config().op("relu", activations={"symmetric": True}), "rule op='relu': activations: changes nothing"),
        (Config("fp16").weights(observer="min_max"), "rule all: weights: changes nothing"),
        (Config("weight-only").activations(observer="min_max"), "rule all: activations: changes nothing"),
        (Config("dynamic").activations(observer="min_max"), "rule all: activations: changes nothing"),
        (Config().op("linear", "weight-only").tensor("linear.input", None), "rule tensor='linear.input': changes nothing"),
    ],
)  # fmt: skip
def test_a_change_that_nothing_takes_is_a_warning_and_a_row(config: Config, message: str) -> None:
    backend = x86().with_config(config)
    with pytest.warns(QuantfxWarning) as caught:
        prepared = backend.prepare(graph())
    [warning] = [str(each.message) for each in caught if each.category is QuantfxWarning]
    assert message in warning
    assert warning in [remark.reason for remark in remarks_of(prepared, RuleRemark)]


@pytest.mark.parametrize(
    "config",
    [
        Config().module("fc", linear_weight={"observer": "min_max"}),
        Config().op("linear", "dynamic", dynamic_act={"quant_max": 127}),
        Config().op("conv2d", conv_weight={"observer": "min_max"}, activations={"observer": "mse"}),
        Config("dynamic").module("left", "static").activations(observer="min_max"),
        Config().tensor("conv2d*.input", observer="min_max"),
    ],
)
def test_a_change_that_some_tensor_takes_is_none(config: Config) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", QuantfxWarning)
        x86().with_config(config).prepare(graph())


@pytest.mark.parametrize(
    ("backend", "config", "message"),
    [
        (xpu, Config("dynamic"), "unknown-name: the default: dynamic"),
        (xpu, Config("fp16"), "unknown-name: the default: fp16"),
        (xpu, Config().module("fc", "dynamic"), "unknown-name: rule module='fc': dynamic"),
    ],
)
def test_a_backend_refuses_modes_it_has_no_template_of(
    backend: Callable[[], Backend], config: Config, message: str
) -> None:
    with refused(message, ConfigError):
        backend().with_config(config).prepare(graph())


def test_an_unsupported_operator_has_its_own_reason() -> None:
    model = Net(lambda c, up, x: up(c(x)), nn.Conv2d(3, 3, 1), nn.ConvTranspose2d(3, 3, 2)).eval()
    module = capture(model, (torch.randn(1, 3, 4, 4),))
    with refused("no-template", ConfigError, site="op='conv_transpose2d'"):
        x86().with_config(Config().op("conv_transpose2d", "static")).prepare(module)


def test_options() -> None:
    assert str(CheckConfig(unmatched="warning")) == "CheckConfig(unmatched='warning')"
    with refused("unknown-name", PipelineError, site="eror", fix="error", says="unmatched"):
        CheckConfig(unmatched="eror")  # type: ignore[arg-type]
