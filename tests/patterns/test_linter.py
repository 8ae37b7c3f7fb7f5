from __future__ import annotations

from pathlib import Path

import pytest

from quantfx.backends.x86 import pattern_set
from quantfx.patterns.linter import lint
from quantfx.patterns.loader import load
from quantfx.patterns.pattern_set import PatternSet

VOCABULARY = Path(__file__).parents[2] / "patterns" / "sets" / "vocabulary.toml"
ADD = """
[template.{name}]
group = "conv"
nodes.conv = {{ op = "conv2d", input = "$x", weight = "$w" }}
nodes.add = {{ op = "add", {first} = "conv", {second} = "$extra" }}
quant = {{ x = "act", w = "weight", extra = "act" }}
"""
CONV = """
[template.conv]
group = "conv"
nodes.conv = { op = "conv2d", input = "$x", weight = "$w" }
quant = { x = "act", w = "weight" }
"""


def patterns(folder: Path, *texts: str) -> PatternSet:
    file = folder / "mine.toml"
    head = f'schema = 1\nvocabulary = "{VOCABULARY}"\n'
    file.write_text(head + "".join(texts), encoding="utf-8")
    return load(file)


@pytest.mark.parametrize("name", ["pt2e", "extended", "linear_modes", "fold", "qat", "qat_pt2e"])
def test_our_own_sets_are_clean(name: str) -> None:
    assert lint(load(name)) == ()


def test_what_x86_binds_is_clean() -> None:
    assert lint(pattern_set()) == lint(pattern_set(plans=True)) == ()


def test_a_template_becomes_one_of_the_set() -> None:
    [finding] = lint(load("plans").without("matmul"))
    assert (finding.rule, finding.template) == ("unknown-template", "attention")
    assert "'matmul'" in finding.message


def test_a_commuted_twin_is_a_duplicate(tmp_path: Path) -> None:
    one = ADD.format(name="one", first="self", second="other")
    two = ADD.format(name="two", first="other", second="self")
    [finding] = lint(patterns(tmp_path, one, two))
    assert (finding.rule, finding.template) == ("duplicate", "two")


def test_a_smaller_template_first_shadows_a_larger_one(tmp_path: Path) -> None:
    add = ADD.format(name="conv_add", first="self", second="other")
    [finding] = lint(patterns(tmp_path, CONV, add))
    assert (finding.rule, finding.template) == ("shadowed", "conv_add")
    assert "conv comes first" in finding.message
    assert lint(patterns(tmp_path, add, CONV)) == ()


def test_a_stricter_template_does_not_shadow(tmp_path: Path) -> None:
    strict = CONV.replace("quant =", 'check = ["constant(w)"]\nquant =')
    add = ADD.format(name="conv_add", first="self", second="other")
    assert lint(patterns(tmp_path, strict, add)) == ()


def test_templates_of_different_modes_do_not_shadow(tmp_path: Path) -> None:
    twin = CONV.replace("template.conv", "template.twin")
    assert lint(patterns(tmp_path, CONV, twin)) != ()
    assert lint(patterns(tmp_path, CONV, twin.replace("nodes", 'mode = "dynamic"\nnodes'))) == ()


def test_a_role_nobody_uses_is_found(tmp_path: Path) -> None:
    [finding] = lint(patterns(tmp_path, CONV.replace(', w = "weight"', "")))
    assert (finding.rule, finding.template) == ("unused-role", "conv")
    assert "$w is neither quantized nor checked" in finding.message
