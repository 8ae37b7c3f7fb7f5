from __future__ import annotations

from dataclasses import replace

from quantfx.patterns.errors import PatternError
from quantfx.patterns.loader import load
from tests.refusals import refused


def test_without_keeps_order_and_names_the_nearest() -> None:
    patterns = load("pt2e")
    assert patterns.without("linear").names == tuple(n for n in patterns.names if n != "linear")
    with refused("unknown-name", PatternError, site="conv2", says="'conv2d'"):
        patterns.without("conv2")


def test_union_refuses_a_template_twice() -> None:
    with refused("taken-name", PatternError, site="conv2d_add"):
        load("pt2e") | load("pt2e")


def test_digest_covers_templates_order_and_checks() -> None:
    patterns = load("pt2e")
    assert patterns.digest == load("pt2e").digest
    assert patterns.digest != patterns.without("flatten").digest
    assert patterns.digest != (patterns.without("mul") | patterns.group("mul")).digest


def test_a_group_stays_known_when_its_templates_are_taken_out() -> None:
    patterns = load("pt2e")
    for kept in (patterns.only(), patterns | load("fold"), patterns.group("fold-scale")):
        assert "conv" in kept.groups
    assert patterns.only() == replace(patterns.only(), groups=frozenset({"other"}))
