from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from quantfx import Config
from quantfx.backends.x86 import x86
from quantfx.passes.errors import ConfigError
from quantfx.passes.pipeline.verify import fingerprint
from tests.models.small import mlp
from tests.refusals import refused
from tests.unchecked import capture

FULL = (
    Config("dynamic")
    .module("encoder.*", None)
    .module("head", "static", activations={"observer": "min_max"}, weights=None)
    .type(nn.Linear, "fp16")
    .op(torch.ops.aten.conv2d.default, "static", conv_weight={"observer": "min_max", "eps": 1e-05})
    .call("true_graph_0/linear", "weight-only")
    .tensor("conv2d_3.input", symmetric=True, dtype=torch.int8, quant_min=-127)
    .tensor('we"ird\\name*.weight\x7fé', None)
    .activations(quant_max=127)
    .weights(observer="min_max")
)


def test_a_config_reads_as_it_is_written() -> None:
    assert FULL.default == "dynamic"
    assert [str(rule) for rule in FULL.rules][:6] == [
        "module='encoder.*'",
        "module='head'",
        "type='torch.nn.modules.linear.Linear'",
        "op='aten.conv2d.default'",
        "call='true_graph_0/linear'",
        "tensor='conv2d_3.input'",
    ]
    assert [rule.mode for rule in FULL.call_rules][:4] == ["float", "static", "fp16", "static"]
    assert Config(None) == Config("float")


def test_a_config_is_a_value() -> None:
    base = Config()
    assert base.module("a", None) != base
    assert base.rules == ()
    assert hash(FULL) == hash(Config.from_toml(FULL.to_toml()))


def test_toml_and_json_give_the_same_config_back() -> None:
    for config in (FULL, Config(), Config(None)):
        assert Config.from_toml(config.to_toml()) == config
        assert Config.from_json(config.to_json()) == config
        assert Config.of(json.loads(config.to_json())) == config


def test_a_config_from_a_file_prepares_the_same_graph(tmp_path: Path) -> None:
    config = (
        Config("static")
        .module("0", "dynamic")
        .tensor("linear_1.input", observer="min_max")
        .weights(observer="min_max")
    )
    (tmp_path / "mine.toml").write_text(config.to_toml(), encoding="utf-8")
    (tmp_path / "mine.json").write_text(config.to_json(), encoding="utf-8")
    graph = capture(mlp(), (torch.randn(4, 8),))
    backends = [
        x86().with_config(given)
        for given in (config, tmp_path / "mine.toml", str(tmp_path / "mine.json"))
    ]
    assert len({backend.recipe.digest for backend in backends}) == 1
    assert len({fingerprint(backend.prepare(graph)) for backend in backends}) == 1
    other = x86().with_config(config.op("linear", "static"))
    assert other.recipe.digest != backends[0].recipe.digest


def test_what_means_a_config() -> None:
    assert Config.of("dynamic") == Config("dynamic")
    assert Config.of("float") == Config(None)
    assert Config.of(FULL) is FULL
    with refused("unknown-name", ConfigError, site="dynamc", says="'dynamic'"):
        Config.of("dynamc")


def test_a_function_has_no_text_form_and_a_digest_of_its_own() -> None:
    config = Config().where(lambda node: node.name == "linear", None)
    with refused("no-text-form", ConfigError):
        config.to_toml()
    with refused("no-text-form", ConfigError):
        config.to_json()
    again = Config().where(lambda node: node.name == "linear_1", None)
    assert config.identity != again.identity
    assert config.identity == config.identity


def typo(value: Any) -> Any:
    """Hide from the type checker what it would find."""
    return value


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Config(typo("statik")), "unknown-name: statik"),
        (lambda: Config().module("a", typo("dynamyc")), "unknown-name: module='a': dynamyc"),
        (lambda: Config().module("a"), "config-value: module='a'"),
        (lambda: Config().module("", None), "config-value: module"),
        (lambda: Config().op("add", act={"observr": "mse"}), "unknown-name: op='add': act: observr"),
        (lambda: Config().call("a", act=typo(3)), "config-value: call='a': act: 3"),
        (lambda: Config().tensor("a.b"), "config-value: tensor='a.b'"),
        (lambda: Config().tensor("a.b", None, eps=1.0), "config-value: a.b"),
        (lambda: Config().tensor("a.b", typo("static")), "config-value: a.b"),
        (lambda: Config().type(typo(None)), "config-value: type"),
        (lambda: Config().type(typo(nn.Linear(1, 1)), None), "config-value: type"),
        (lambda: Config().module(typo(3), None), "config-value: module"),
        (lambda: Config().where(typo("x"), None), "config-value: where"),
        (lambda: Config.of(typo({1: 2})), "unknown-name: config: 1"),
        (lambda: Config.of({"rule": [{"op": "add", 2: {}}]}), "config-value: config: [rule 1]: 2"),
        (lambda: Config.from_toml(typo(None)), "wrong-type: config"),
        (lambda: Config.from_json(typo(b"\xff")), "wrong-type: config"),
        (lambda: Config().activations(observer=typo("minmax")), "unknown-name: activations: minmax"),
        (lambda: Config().module("a", op={"eps": 1.0}), "taken-name: op"),
        (lambda: Config().op("add", all=None), "taken-name: all"),
        (lambda: Config().activations(), "config-value: activations"),
    ],
)  # fmt: skip
def test_mistakes_name_the_rule_and_the_fix(make: Callable[[], Any], message: str) -> None:
    with refused(message, ConfigError):
        make()
