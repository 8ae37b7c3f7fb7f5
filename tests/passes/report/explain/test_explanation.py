"""Explanations as plain data and as trees, also of a result that was saved."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn

import quantfx
from quantfx import Explanation, Explanations
from quantfx.passes.report.text import MOVES_VALUES
from quantfx.tools.models.bert import BERT_TINY, bert, bert_inputs
from quantfx.tools.models.resnet import resnet18
from tests.passes.report.explain.explained import folded, shared
from tests.unchecked import quantize

TREE = """\
conv2d  aten.conv2d.default
├── int8 by template conv2d_unary: kernel qconv_pointwise
├── module: conv (Conv2d)
├── history
│   └── fold-batch-norm: it also stands in place of batch_norm (aten.batch_norm.default, norm).
│       `batch_norm(conv(x, w, b)) -> conv(x, w * s, (b - mean) * s + beta)`; a linear alike.
├── config: static, by its default
├── templates tried
│   ├── no: conv2d_add_relu, as relu is aten.relu.default, not add
│   ├── no: conv2d_add, as relu is aten.relu.default, not add
│   └── matched: conv2d_unary
├── match: conv2d_unary of conv2d, relu
├── tensors
"""


def test_the_tree_reads_from_top_to_bottom(tmp_path: Path) -> None:
    folded().save(tmp_path / "model.quantfx")
    loaded = quantfx.load(tmp_path / "model.quantfx", strict=False)
    text = str(loaded.explain("conv"))
    assert text.startswith(TREE)
    rest = text.removeprefix(TREE)
    assert "input = x: u8[0,255] affine, asked for by rule all as 'act'; observer" in rest
    assert rest.endswith("└── kernel\n    ├── eager: qconv_pointwise\n    └── together with relu")
    console = Console(width=100, color_system=None)
    with console.capture() as capture:
        console.print(loaded.explain("conv"))
    assert [line.rstrip() for line in capture.get().splitlines()] == text.splitlines()


def test_plain_data_goes_through_json() -> None:
    answers = shared().explain("*")
    data = answers.as_dict()
    assert json.loads(json.dumps(data)) == data
    assert (data["version"], data["asked"], len(data["sites"])) == (1, "*", len(answers))
    assert set(data["sites"][0]) == {"version", *Explanation.__dataclass_fields__}
    assert isinstance(answers, Explanations)
    assert answers[0] in answers[0:2]


def test_a_loaded_result_says_the_same_but_for_the_code(tmp_path: Path) -> None:
    for result in (folded(), shared()):
        result.save(tmp_path / "model.quantfx")
        loaded = quantfx.load(tmp_path / "model.quantfx", backend=result.backend, strict=False)
        before, after = result.explanations(), loaded.explanations()
        assert [each.site for each in before] == [each.site for each in after]
        for a, b in zip(before, after, strict=True):
            assert {**a.as_dict(), "code": None} == b.as_dict()
        assert any(each.code is not None for each in before)


@pytest.mark.parametrize("network", ["bert", pytest.param("resnet", marks=pytest.mark.sweep)])
def test_networks_are_explained_node_by_node(network: str) -> None:
    image = torch.randn(1, 3, 64, 64)
    if network == "bert":
        result = quantize(bert(BERT_TINY), bert_inputs(BERT_TINY))
    else:
        result = quantize(resnet18().eval(), image)
    answers = result.explanations()
    assert len(answers) > 100
    planned = {str(each.site) for each in result.report.sites}
    assert planned == {each.match.anchor for each in answers if each.match is not None}
    floats = [each for each in answers if each.standing == "float"]
    assert all(each.reason for each in floats)
    kernels = {str(each.site): each.kernel for each in result.report.sites}
    for each in answers:
        if each.match is not None and each.kernel is not None:
            assert each.kernel.eager == kernels[each.match.anchor]


def test_trained_results() -> None:
    from tests.passes.report.explain.explained import IMAGE, Folded

    trained = quantfx.prepare_qat(Folded(), IMAGE, progress=False, strict=False)
    trained(IMAGE).sum().backward()
    trained.eval()
    result = quantfx.convert_qat(trained, strict=False)
    [layer] = [each for each in result.explain("conv") if each.match is not None]
    assert layer.tensors[0].observer == "training"
    assert [step.other for step in layer.history] == ["batch_norm"]
    assert "conv2d_bn_unary" in [each.template for each in layer.tries if each.matched]
    gone = result.explain("drop")[-1]
    assert gone.standing == "gone"
    assert gone.history[-1].other == "relu"


def test_copies_of_results_explain_themselves() -> None:
    import copy

    first = folded()
    first.explain("conv")
    assert copy.deepcopy(first).explain("conv").as_dict() == first.explain("conv").as_dict()
    assert copy.copy(first).explain("conv").as_dict() == first.explain("conv").as_dict()


def test_of_several_those_that_only_move_values_share_a_line() -> None:
    attention = nn.MultiheadAttention(16, 2, batch_first=True)
    x = torch.randn(2, 4, 16)
    result = quantize(attention.eval(), (x, x, x), config="dynamic", backend="x86")
    found = result.explain("*")
    text = str(found)
    moving = [each for each in found if each.reason == MOVES_VALUES]
    assert len(moving) > 5
    assert text.count(MOVES_VALUES) == 1
    assert f"\n{moving[0].site}, {moving[1].site}, " in text
    assert str(result.explain(moving[0].site)).startswith(f"{moving[0].site}  {moving[0].op}\n")


def test_a_module_that_only_lends_its_weight_names_the_reader() -> None:
    attention = nn.MultiheadAttention(16, 2, batch_first=True)
    x = torch.randn(2, 4, 16)
    result = quantize(attention.eval(), (x, x, x), config="dynamic", backend="x86")
    (lent,) = result.explain("out_proj")
    readers = [node.name for node in result.quantized.graph.nodes if "linear" in str(node.target)]
    assert lent.kind == "silent"
    assert lent.reason.endswith(f"reads its tensors, in {readers[-1]}")
