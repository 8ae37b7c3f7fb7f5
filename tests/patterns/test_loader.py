from __future__ import annotations

from pathlib import Path

import pytest
from torch.fx import Graph

from quantfx.patterns.errors import PatternError
from quantfx.patterns.loader import load
from quantfx.patterns.template import Constant, Ref, Role
from tests.refusals import refused

HEAD = 'schema = 1\nvocabulary = "{vocabulary}"\n'
CONV = """
[template.conv]
group = "conv"
nodes.conv = { op = "conv2d", input = "$x", weight = "$w" }
nodes.relu = { op = "relu", self = "conv", optional = true }
quant = { x = "act" }
check = ["constant(w)"]
"""


def write(folder: Path, text: str, head: str = HEAD) -> Path:
    vocabulary = Path(__file__).parents[2] / "patterns" / "sets" / "vocabulary.toml"
    file = folder / "mine.toml"
    file.write_text(head.format(vocabulary=vocabulary) + text, encoding="utf-8")
    return file


def test_reads_a_template(tmp_path: Path) -> None:
    template = load(write(tmp_path, CONV))["conv"]
    assert [node.name for node in template.nodes] == ["conv", "relu"]
    assert dict(template.nodes[0].arguments) == {"input": Role("x"), "weight": Role("w")}
    assert dict(template.nodes[1].arguments) == {"self": Ref("conv")}
    assert [variant.label for variant in template.variants()] == ["conv_relu", "conv"]
    assert template.variants().__next__().output.name == "relu"


def test_literals_and_role_suffixes(tmp_path: Path) -> None:
    text = CONV.replace('weight = "$w" }', 'weight = "$w", bias = "$b?", groups = 1 }')
    arguments = dict(load(write(tmp_path, text))["conv"].nodes[0].arguments)
    assert arguments["bias"] == Role("b", optional=True)
    assert arguments["groups"] == Constant(1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('op = "conv2d"', 'op = "conv2dd"'), "unknown-name: mine.toml: [template.conv.nodes.conv]: conv2dd"),
        (('input = "$x"', 'inptu = "$x"'), "unknown-name: mine.toml: [template.conv.nodes.conv]: inptu"),
        (('self = "conv"', 'self = "cnov"'), "unknown-name: mine.toml: [template.conv.nodes.relu]"),
        (('"$w" }', '"$W" }'), "name-form: mine.toml: [template.conv.nodes.conv]"),
        (("constant(w)", "constnat(w)"), "unknown-name: mine.toml: [template.conv]: constnat"),
        (("constant(w)", "constant(v)"), "unknown-name: mine.toml: [template.conv]: v"),
        (("constant(w)", "constant"), "name-form: mine.toml: [template.conv]"),
        (("constant(w)", "same_shape(w)"), "template-check: mine.toml: [template.conv]"),
        (("quant = { x", "quant = { y"), "unknown-name: mine.toml: [template.conv.quant]: y"),
        (('group = "conv"', 'gruop = "conv"'), "unknown-name: mine.toml: [template.conv]: gruop"),
        (('group = "conv"\n', ""), "missing-key: mine.toml: [template.conv]"),
        (('quant = {', 'reach = "kernal"\nquant = {'), "unknown-name: mine.toml: [template.conv]: kernal"),
        (('"act" }', '"act", out = "bias(x)" }'), "out-spec: mine.toml: [template.conv]"),
        (('"act" }', '"act" }\npacks = { v = "act" }'), "unknown-name: mine.toml: [template.conv.packs]: v"),
        (('"act" }', '"act" }\npacks = { x = "act" }'), "packed-role: mine.toml: [template.conv]"),
        (('"act" }', '"act" }\npacks = { w = "same(x)" }'), "spec-name: mine.toml: [template.conv]"),
        (('"act" }', '"act", out = "same(w)" }'), "quantized-role: mine.toml: [template.conv]"),
        (('"act" }', "1 }"), "wrong-type: mine.toml: [template.conv]: quant.x"),
        (('"$w" }', '"$out" }'), "taken-name: mine.toml: [template.conv.nodes.conv]"),
        (("optional = true", 'optional = "zzz"'), "wrong-type: mine.toml: [template.conv.nodes.relu]: optional"),
        (('op = "relu"', "op = 1"), "wrong-type: mine.toml: [template.conv.nodes.relu]: op"),
        (('op = "relu", self', 'op = ["relu", 2], self'), "wrong-type: mine.toml: [template.conv.nodes.relu]: op"),
        (("check = [", "check = 1 #"), "wrong-type: mine.toml: [template.conv]: check"),
        (('"conv"\nnodes', "1\nnodes"), "wrong-type: mine.toml: [template.conv]: group"),
        (('quant = {', 'kernel = 1.5\nquant = {'), "wrong-type: mine.toml: [template.conv]: kernel"),
        (('quant = {', 'reach = [["a"]]\nquant = {'), "wrong-type: mine.toml: [template.conv]: reach"),
        (('op = "relu", self', 'op = ["add", "relu"], self'), "commuting-node: mine.toml: [template.conv.nodes.relu]"),
        (('quant = {', 'when = "inputs_quantized"\nquant = {'), "one-node: mine.toml: [template.conv]"),
        (('input = "$x", weight', 'input = "relu", weight'), "node-cycle: mine.toml: [template.conv]"),
        (('self = "conv", optional = true', 'self = "$y"'), "one-result: mine.toml: [template.conv]"),
        (('self = "conv", optional', 'self = "$y", optional'), "optional-node: mine.toml: [template.conv.nodes.relu]"),
        (("quant = {", 'mode = "dynamyc"\nquant = {'), "unknown-name: mine.toml: [template.conv]: dynamyc"),
        (("quant = {", 'on_request = 1\nquant = {'), "wrong-type: mine.toml: [template.conv]: on_request"),
        (('"act" }', '"act", w = "bias(x, v)" }'), "unknown-name: mine.toml: [template.conv.quant]: v"),
        (('"act" }', '"act", w = "bias(x, w)" }'), "derived-twice: mine.toml: [template.conv]"),
        (('{ x = "act" }', '{ w = "bias(x)" }'), "quantized-role: mine.toml: [template.conv]"),
        (('"act" }', '"act", w = "bias(x" }'), "name-form: mine.toml: [template.conv]"),
        (('"act" }', '"act", w = "same(x)" }'), "same-is-out: mine.toml: [template.conv]"),
    ],
)  # fmt: skip
def test_errors_name_file_key_and_fix(
    tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    assert change[0] in CONV
    with refused(message, PatternError) as error:
        load(write(tmp_path, CONV.replace(*change)))
    assert str(error.value).startswith("mine.toml: [template.conv")


@pytest.mark.parametrize(
    ("ops", "message"),
    [
        ('f = ["aten.gelu.defualt"]', "unknown-name: mine.toml: [ops.f]: aten.gelu.defualt"),
        ('f = ["aten.gleu.default"]', "unknown-name: mine.toml: [ops.f]: aten.gleu.default"),
        ('f = ["gelu"]', "name-form: mine.toml: [ops.f]: gelu"),
        ("f = [1]", "wrong-type: mine.toml: [ops.f]: targets"),
        ("f = { targets = 1 }", "wrong-type: mine.toml: [ops.f]: targets"),
        ('f = { targets = ["aten.add.Tensor"], commutes = ["self"] }', "name-form: mine.toml: [ops.f]"),
        ('f = { targets = ["aten.add.Tensor"], commutes = 1 }', "wrong-type: mine.toml: [ops.f]: commutes"),
        ("f = []", "missing-key: mine.toml: [ops.f]"),
        ('f = { targets = ["aten.add.Tensor"], commutes = ["slef", "other"] }', "unknown-name: mine.toml: [ops.f]: slef"),
    ],
)  # fmt: skip
def test_vocabulary_is_checked_against_torch(tmp_path: Path, ops: str, message: str) -> None:
    with refused(message, PatternError):
        load(write(tmp_path, f"[ops]\n{ops}\n", head="schema = 1\n"))


def test_modes_requests_and_derived_specs(tmp_path: Path) -> None:
    text = CONV.replace(
        'quant = { x = "act" }',
        'mode = "dynamic"\non_request = true\nquant = { x = "act", w = "weight(x)" }',
    )
    patterns = load(write(tmp_path, text + "[template.plain]" + CONV.split("]", 1)[1]))
    template = patterns["conv"]
    assert (template.mode, template.on_request) == ("dynamic", True)
    assert (patterns["plain"].mode, patterns["plain"].on_request) == ("static", False)
    assert str(template.quant["w"]) == "weight(x)"
    assert template.is_weight("w")
    assert not template.is_weight("x")
    assert patterns.modes == ("static", "dynamic")
    assert patterns.of_mode("dynamic").names == ("conv",)
    assert patterns.spec_names == ("act", "weight")


def test_unsupported_operators_have_reasons(tmp_path: Path) -> None:
    patterns = load(write(tmp_path, '[unsupported]\nlstm = "no kernel"\n' + CONV))
    assert [(op.name, reason) for op, reason in patterns.unsupported] == [("lstm", "no kernel")]
    both = patterns | load("extended")
    assert dict(both.unsupported) == dict(patterns.unsupported) | dict(load("extended").unsupported)
    inherits = tmp_path / "inherits.toml"
    inherits.write_text('schema = 1\nextends = "mine.toml"\n', encoding="utf-8")
    assert load(inherits).unsupported == patterns.unsupported
    with refused("unknown-name", PatternError, site="lstn", says="'lstm'"):
        load(write(tmp_path, '[unsupported]\nlstn = "no kernel"\n'))
    with refused("wrong-type", PatternError, site="mine.toml: [unsupported]: lstm"):
        load(write(tmp_path, "[unsupported]\nlstm = 1\n"))


def test_extends_and_without(tmp_path: Path) -> None:
    file = tmp_path / "less.toml"
    file.write_text(
        'schema = 1\nextends = "pt2e.toml"\nwithout = ["max_pool2d"]\n', encoding="utf-8"
    )
    names = load(file).names
    assert "max_pool2d" not in names
    assert len(names) == len(load("pt2e").names) - 1
    file.write_text(file.read_text().replace("max_pool2d", "max_pool"), encoding="utf-8")
    with refused("unknown-name", PatternError, site="max_pool", says="'max_pool2d'"):
        load(file)


def test_a_file_beside_comes_before_one_of_ours(tmp_path: Path) -> None:
    (tmp_path / "pt2e.toml").write_text("schema = 1\n", encoding="utf-8")
    file = tmp_path / "mine.toml"
    file.write_text('schema = 1\nextends = "pt2e.toml"\n', encoding="utf-8")
    assert load(file).names == ()


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with refused("unknown-name", PatternError, site="pt2", fix="pt2e"):
        load("pt2")
    with refused("unreadable-file", PatternError):
        load(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("schema = \n", encoding="utf-8")
    with refused("unreadable-file", PatternError, site="bad.toml", says="line 1"):
        load(tmp_path / "bad.toml")
    (tmp_path / "latin.toml").write_bytes(b"schema = '\xe9'")
    with refused("unreadable-file", PatternError, site="latin.toml"):
        load(tmp_path / "latin.toml")
    (tmp_path / "loop.toml").write_text('schema = 1\nextends = "loop.toml"\n', encoding="utf-8")
    with refused("extends-itself", PatternError, site="loop.toml"):
        load(tmp_path / "loop.toml")
    (tmp_path / "old.toml").write_text("schema = 0\n", encoding="utf-8")
    with refused("file-version", PatternError, site="old.toml", says="expected 1"):
        load(tmp_path / "old.toml")


def test_lists_and_strings_as_literals(tmp_path: Path) -> None:
    text = CONV.replace('weight = "$w" }', 'weight = "$w", padding = [1, 1] }')
    text += """
[template.gelu]
group = "conv"
nodes.gelu = { op = "gelu", self = "$x", approximate = "'none'" }
quant = { x = "act" }
"""
    patterns = load(write(tmp_path, text))
    assert dict(patterns["conv"].nodes[0].arguments)["padding"] == Constant((1, 1))
    assert dict(patterns["gelu"].nodes[0].arguments)["approximate"] == Constant("none")
    assert patterns.matcher().run(Graph()) == []
