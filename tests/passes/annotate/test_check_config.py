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
from quantfx.passes.report.contract import find_skipped
from tests.export_cases import Net
from tests.models.small import cat_pool_net
from tests.unchecked import capture


def graph() -> GraphModule:
    return capture(cat_pool_net(), (torch.randn(2, 3, 16, 16),))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Config().module("lefft", None), "rule module='lefft' selects nothing in this graph (did you mean 'left'"),
        (Config().module("*.foo", None), "rule module='*.foo' selects nothing"),
        (Config().type("Conv2", None), "rule type='Conv2' selects nothing in this graph (did you mean 'Conv2d'"),
        (Config().op("conv3d", None), "rule op='conv3d' selects nothing in this graph (did you mean 'conv2d'"),
        (Config().call("conv2d_7", None), "(did you mean 'conv2d_2' or 'conv2d_1' or 'conv2d'?)"),
        (Config().tensor("linear.inptu", None), "(did you mean 'linear.input'"),
        (Config().tensor("linear.bias", None), "rule tensor='linear.bias' changes nothing: no template quantizes linear.bias"),
        (Config().tensor("relu*.self", observer="min_max"), "rule tensor='relu*.self' changes nothing: no template quantizes relu.self"),
        (Config().where(lambda _: False, None), "selects nothing in this graph"),
        (Config().op("linear", act_={"eps": 1.0}), "rule op='linear': no spec 'act_' (did you mean 'act'?)"),
        (Config().op("conv2d", "dynamic"), "rule op='conv2d': mode 'dynamic' for conv2d: backend 'x86' has no such template, only static"),
        (Config().call("conv2d_1", "fp16"), "rule call='conv2d_1': mode 'fp16' for conv2d"),
        (Config().op("relu", "static"), "mode 'static' for relu: it is only taken behind conv1d, conv2d, linear; select that instead"),
        (Config().call("flatten", "dynamic"), "for flatten: backend 'x86' has no such template, only static"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_an_error(config: Config, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        x86().with_config(config).prepare(graph())
    assert message in str(error.value)


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
    assert lines[3] == "pass strict=False to go on without"
    assert str(module.graph) == before


def test_without_strict_it_is_a_warning_and_a_row() -> None:
    backend = x86().with_config(Config().module("nowhere", None))
    with pytest.warns(QuantfxWarning, match="rule module='nowhere' selects nothing"):
        prepared = backend.prepare(graph(), strict=False)
    first = find_skipped(prepared, backend.recipe)[0]
    assert (first.node, first.op) == ("module='nowhere'", "config")


def test_a_rule_that_others_outdo_everywhere_is_a_warning() -> None:
    config = Config().op("linear", "dynamic").module("fc", "static")
    with pytest.warns(QuantfxWarning, match="rule op='linear' decides nothing: other rules"):
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
    assert warning in [remark.message for remark in find_skipped(prepared, backend.recipe)]


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
        (xpu, Config("dynamic"), "the default: backend 'xpu' has no mode 'dynamic', only static"),
        (xpu, Config("fp16"), "the default: backend 'xpu' has no mode 'fp16', only static"),
        (xpu, Config().module("fc", "weight-only"), "rule module='fc': backend 'xpu' has no mode"),
    ],
)
def test_a_backend_refuses_modes_it_has_no_template_of(
    backend: Callable[[], Backend], config: Config, message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        backend().with_config(config).prepare(graph())
    assert message in str(error.value)


def test_an_unsupported_operator_has_its_own_reason() -> None:
    model = Net(lambda c, up, x: up(c(x)), nn.Conv2d(3, 3, 1), nn.ConvTranspose2d(3, 3, 2)).eval()
    module = capture(model, (torch.randn(1, 3, 4, 4),))
    with pytest.raises(ConfigError, match="transposed convolutions that Inductor reaches"):
        x86().with_config(Config().op("conv_transpose2d", "static")).prepare(module)


def test_options() -> None:
    assert str(CheckConfig(unmatched="warning")) == "CheckConfig(unmatched='warning')"
    with pytest.raises(PipelineError, match="unmatched='eror' .did you mean 'error'"):
        CheckConfig(unmatched="eror")  # type: ignore[arg-type]
