"""The pattern that lowers is the template that annotates, with q and dq on its quantized edges."""

from __future__ import annotations

import pytest

from quantfx import backends
from quantfx.backends.x86 import pattern_set
from quantfx.passes.lower.quantized_edges import quantized_edges
from quantfx.patterns.template import PatternNode

RECIPE = backends.get("x86", target="any").recipe


def text(name: str) -> str:
    return str(quantized_edges(RECIPE.patterns[name], RECIPE))


@pytest.mark.parametrize(("name", "pattern"), [
    ("conv2d_add",
     "conv2d_add: conv = conv2d(input=x_dq, weight=w_dq, bias=$b?); "
     "add = add(self=conv, other=extra_dq); relu? = relu(self=add); "
     "x_dq = dequantize(input=$x); w_dq = dequantize(input=$w); extra_dq = dequantize(input=$extra); "
     "q? = quantize(input=relu) if constant($w) if same_shape(conv, extra)"),
    ("linear_dynamic",
     "linear_dynamic: linear = linear(input=x_dq, weight=w_dq, bias=$b?); "
     "unary? = relu|leaky_relu|tanh|gelu(self=linear); x_dq = dequantize_dynamic(input=$x); "
     "w_dq = dequantize(input=$w); q? = quantize(input=unary) if constant($w)"),
    ("linear_fp16",
     "linear_fp16: linear = linear(input=$x, weight=w_dq, bias=$b?); w_dq = cast(input=$w); "
     "q? = quantize(input=linear) if float32(x) if constant($w)"),
    ("linear_weight_only",
     "linear_weight_only: linear = linear(input=$x, weight=w_dq, bias=$b?); "
     "w_dq = dequantize_rows(input=$w); q? = quantize(input=linear) if float32(x) if constant($w)"),
    ("linear_weight_only_4bit",
     "linear_weight_only_4bit: linear = linear(input=$x, weight=w_dq, bias=$b?); "
     "w_dq = dequantize_groups(input=$w); q? = quantize(input=linear) if float32(x) if constant($w)"),
    ("cat", "cat: cat = cat(tensors=$xs*); q = quantize(input=cat)"),
    ("max_pool2d",
     "max_pool2d: pool = max_pool2d(self=x_dq); x_dq = dequantize(input=$x); "
     "q = quantize(input=pool)"),
])  # fmt: skip
def test_the_pattern_as_text(name: str, pattern: str) -> None:
    assert text(name) == pattern.replace("constant($w)", "constant(w)")


@pytest.mark.parametrize(("name", "kept"), [
    ("conv2d", "constant(w) constant(b) batched(conv, w)"),
    ("linear", "has_rows(x) constant(w) constant(b)"),
    ("group_norm", "has_positions(x)"),
    ("batch_norm", "dimensions_2_to_5(x)"),
    ("softmax", "float32(softmax)"),
    ("average", "float32(average)"),
    ("add", ""),
])  # fmt: skip
def test_ranks_and_dtypes_that_kernels_need_are_checked_again(name: str, kept: str) -> None:
    recipe = backends.get("native", target="any").recipe
    checks = quantized_edges(recipe.patterns[name], recipe).checks
    assert " ".join(map(str, checks)) == kept


@pytest.mark.parametrize("name", pattern_set().names)
def test_nothing_but_edges_is_added(name: str) -> None:
    template = RECIPE.patterns[name]
    lifted = quantized_edges(template, RECIPE)
    added = [node for node in lifted.nodes if node.name.endswith("_dq") or node.name == "q"]
    kept = [node for node in lifted.nodes if node not in added]
    assert lifted.anchor.name == template.anchor.name
    assert [shape(node) for node in kept] == [shape(node) for node in template.nodes]
    singles = {r.name for r in template.roles if not r.many and r.name in template.quant}
    assert {node.name for node in added} == {*(f"{name}_dq" for name in singles), "q"}
    assert set(lifted.checks) <= set(template.checks)


def shape(node: PatternNode) -> tuple[object, ...]:
    return (node.name, node.ops, node.optional, tuple(slot for slot, _ in node.arguments))
