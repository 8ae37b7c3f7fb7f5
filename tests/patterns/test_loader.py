from __future__ import annotations

from pathlib import Path

import pytest
from torch.fx import Graph

from quantfx.patterns.errors import PatternError
from quantfx.patterns.loader import load
from quantfx.patterns.template import Constant, Ref, Role

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
        (('op = "conv2d"', 'op = "conv2dd"'), "no op 'conv2dd' in the vocabulary (did you mean 'conv2d'?)"),
        (('input = "$x"', 'inptu = "$x"'), "aten.conv2d.default has no argument 'inptu' (did you mean 'input'?)"),
        (('self = "conv"', 'self = "cnov"'), "'cnov' is no node of the template (did you mean 'conv'?)"),
        (('"$w" }', '"$W" }'), "'$W' is not of the form $role, $role? or $role*"),
        (("constant(w)", "constnat(w)"), "no predicate 'constnat' (did you mean 'constant'?)"),
        (("constant(w)", "constant(v)"), "unknown name 'v'"),
        (("constant(w)", "constant"), "is not of the form predicate(name, ...)"),
        (("constant(w)", "same_shape(w)"), "same_shape takes 2 nodes or roles"),
        (("quant = { x", "quant = { y"), "quant names 'y', which is no role"),
        (('group = "conv"', 'gruop = "conv"'), "unknown key 'gruop' (did you mean 'group'?)"),
        (('group = "conv"\n', ""), "'group' is missing"),
        (('quant = {', 'reach = "kernal"\nquant = {'), "reach = 'kernal' (did you mean 'kernel'?)"),
        (('"act" }', '"act", out = "bias(x)" }'), "it is a spec of its own, or same(role)"),
        (('"act" }', '"act" }\npacks = { v = "act" }'), "packs names 'v', which is no role"),
        (('"act" }', '"act" }\npacks = { x = "act" }'), "which must be constant(x) and not in quant"),
        (('"act" }', '"act" }\npacks = { w = "same(x)" }'), "not the name of a spec"),
        (('"act" }', '"act", out = "same(w)" }'), "$w is not quantized itself"),
        (('"act" }', "1 }"), "'quant.x' must be a string, not 1"),
        (('"$w" }', '"$out" }'), "a role cannot be named 'out'"),
        (("optional = true", 'optional = "zzz"'), "'optional' must be true or false"),
        (('op = "relu"', "op = 1"), "'op' must be a list of strings, not 1"),
        (('op = "relu", self', 'op = ["relu", 2], self'), "'op' must be a string, not 2"),
        (("check = [", "check = 1 #"), "'check' must be a list of strings"),
        (('"conv"\nnodes', "1\nnodes"), "'group' must be a string, not 1"),
        (('quant = {', 'kernel = 1.5\nquant = {'), "'kernel' must be a string"),
        (('quant = {', 'reach = [["a"]]\nquant = {'), "'reach' must be a string"),
        (('op = "relu", self', 'op = ["add", "relu"], self'), "operators that commute and ones that do not"),
        (('quant = {', 'when = "inputs_quantized"\nquant = {'), "for templates of one node"),
        (('input = "$x", weight', 'input = "relu", weight'), "form a cycle"),
        (('self = "conv", optional = true', 'self = "$y"'), "exactly one node may be left unread"),
        (('self = "conv", optional', 'self = "$y", optional'), "an optional node must read another"),
        (("quant = {", 'mode = "dynamyc"\nquant = {'), "mode = 'dynamyc' (did you mean 'dynamic'?)"),
        (("quant = {", 'on_request = 1\nquant = {'), "'on_request' must be true or false"),
        (('"act" }', '"act", w = "bias(x, v)" }'), "quant names 'v', which is no role"),
        (('"act" }', '"act", w = "bias(x, w)" }'), "the qparams of $w are derived themselves"),
        (('{ x = "act" }', '{ w = "bias(x)" }'), "w = bias(x): $x is not quantized itself"),
        (('"act" }', '"act", w = "bias(x" }'), "not of the form spec, same(role) or spec(role, ...)"),
        (('"act" }', '"act", w = "same(x)" }'), "only 'out' is same(role)"),
    ],
)  # fmt: skip
def test_errors_name_file_key_and_fix(
    tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    assert change[0] in CONV
    with pytest.raises(PatternError) as error:
        load(write(tmp_path, CONV.replace(*change)))
    assert message in str(error.value)
    assert str(error.value).startswith("mine.toml: [template.conv")


@pytest.mark.parametrize(
    ("ops", "message"),
    [
        ('f = ["aten.gelu.defualt"]', "no overload 'aten.gelu.defualt'"),
        ('f = ["aten.gleu.default"]', "no operator 'aten.gleu.default'"),
        ('f = ["gelu"]', "is not of the form namespace.operator.overload"),
        ("f = [1]", "'targets' must be a string, not 1"),
        ("f = { targets = 1 }", "'targets' must be a list of strings"),
        ('f = { targets = ["aten.add.Tensor"], commutes = ["self"] }', "'commutes' must name two arguments"),
        ('f = { targets = ["aten.add.Tensor"], commutes = 1 }', "'commutes' must be a list"),
        ("f = []", "must list at least one operator overload"),
        ('f = { targets = ["aten.add.Tensor"], commutes = ["slef", "other"] }', "no argument 'slef'"),
    ],
)  # fmt: skip
def test_vocabulary_is_checked_against_torch(tmp_path: Path, ops: str, message: str) -> None:
    with pytest.raises(PatternError, match="mine.toml") as error:
        load(write(tmp_path, f"[ops]\n{ops}\n", head="schema = 1\n"))
    assert message in str(error.value)


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
    assert dict(both.unsupported).keys() == dict(load("extended").unsupported).keys()
    inherits = tmp_path / "inherits.toml"
    inherits.write_text('schema = 1\nextends = "mine.toml"\n', encoding="utf-8")
    assert load(inherits).unsupported == patterns.unsupported
    with pytest.raises(PatternError, match=r"\[unsupported\]: no op 'lstn' .* mean 'lstm'"):
        load(write(tmp_path, '[unsupported]\nlstn = "no kernel"\n'))
    with pytest.raises(PatternError, match="'lstm' must be a string"):
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
    with pytest.raises(PatternError, match="did you mean 'max_pool2d'"):
        load(file)


def test_a_file_beside_comes_before_one_of_ours(tmp_path: Path) -> None:
    (tmp_path / "pt2e.toml").write_text("schema = 1\n", encoding="utf-8")
    file = tmp_path / "mine.toml"
    file.write_text('schema = 1\nextends = "pt2e.toml"\n', encoding="utf-8")
    assert load(file).names == ()


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(PatternError, match="no pattern set 'pt2'.*did you mean 'pt2e'"):
        load("pt2")
    with pytest.raises(PatternError, match="cannot be read"):
        load(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("schema = \n", encoding="utf-8")
    with pytest.raises(PatternError, match=r"bad.toml: not valid TOML.*line 1"):
        load(tmp_path / "bad.toml")
    (tmp_path / "latin.toml").write_bytes(b"schema = '\xe9'")
    with pytest.raises(PatternError, match="latin.toml: not UTF-8 text"):
        load(tmp_path / "latin.toml")
    (tmp_path / "loop.toml").write_text('schema = 1\nextends = "loop.toml"\n', encoding="utf-8")
    with pytest.raises(PatternError, match="the file extends itself"):
        load(tmp_path / "loop.toml")
    (tmp_path / "old.toml").write_text("schema = 0\n", encoding="utf-8")
    with pytest.raises(PatternError, match="expected 1"):
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
