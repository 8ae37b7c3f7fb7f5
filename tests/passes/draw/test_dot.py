from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from syrupy.assertion import SnapshotAssertion
from torch import nn
from torch.fx import Graph, GraphModule, Node

import quantfx
from quantfx.passes.draw.dot import to_dot, to_overview_dot
from quantfx.passes.draw.names import TIMES
from quantfx.passes.draw.reading import read_picture
from quantfx.passes.quant.annotation import META_KEY
from tests.drawing_samples import (
    ATEN,
    SAMPLES,
    Residual,
    calls,
    capture,
    chain,
    drawn_nodes,
    every_edge,
    mark,
    quantized,
    rewire,
    shuffled,
)
from tests.refusals import refused

ROOT = Path(__file__).parents[3]


def line(text: str, name: str) -> str:
    """The line of one node or edge."""
    (found,) = [one for one in text.splitlines() if one.strip().startswith(f"{name} [")]
    return found.strip()


def negated(node: Node) -> Node:
    return node.graph.call_function(ATEN.neg.default, (node,))


def test_the_styled_drawing(graph_snapshot: SnapshotAssertion) -> None:
    assert to_dot(SAMPLES["quantized"]()) == graph_snapshot


@pytest.mark.parametrize("sample", ["quantized", "observed", "dynamic", "cond"])
def test_snapshots(sample: str, graph_snapshot: SnapshotAssertion) -> None:
    assert SAMPLES[sample]() == graph_snapshot


@pytest.mark.parametrize("sample", SAMPLES)
def test_equal_graphs_give_equal_bytes(sample: str) -> None:
    module = SAMPLES[sample]()
    expected = to_dot(module)
    assert [seed for seed in range(50) if to_dot(shuffled(module, seed)) != expected] == []


def test_text_does_not_depend_on_the_hash_seed() -> None:
    code = (
        "from tests.drawing_samples import SAMPLES\n"
        "from quantfx.passes.draw.dot import to_dot\n"
        "print(''.join(to_dot(sample()) for sample in SAMPLES.values()), end='')\n"
    )
    # A seed that is not this process's own, which is random unless it is set.
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, check=True
    )
    assert done.stdout == "".join(to_dot(sample()) for sample in SAMPLES.values()).encode()


@pytest.mark.parametrize("sample", SAMPLES)
def test_every_dropped_edge_shows(sample: str) -> None:
    module = SAMPLES[sample]()
    expected = to_dot(module)
    for _, node, index in every_edge(module):
        args, kwargs = node.args, node.kwargs
        rewire(node, index, lambda _: None)
        assert to_dot(module) != expected, f"input {index} of {node.name}"
        node.args, node.kwargs = args, kwargs
    assert to_dot(module) == expected


@pytest.mark.parametrize("sample", SAMPLES)
def test_every_added_node_shows(sample: str) -> None:
    module = SAMPLES[sample]()
    expected = to_dot(module)
    for graph, node, index in every_edge(module):
        args, kwargs = node.args, node.kwargs
        with graph.inserting_before(node):
            rewire(node, index, negated)
        assert to_dot(module) != expected, f"input {index} of {node.name}"
        node.args, node.kwargs = args, kwargs
        graph.eliminate_dead_code()
    assert to_dot(module) == expected


def test_dropped_dequantize_shows() -> None:
    """A dq is folded into its edge, but an edge without one looks different."""
    module = quantized()
    expected = to_dot(module)
    for dq in calls(module, "quantized_decomposed.dequantize_per_tensor"):
        (reader,) = dq.users
        (q,) = dq.all_input_nodes
        reader.replace_input_with(dq, q)
        assert to_dot(module) != expected
        reader.replace_input_with(q, dq)
    assert to_dot(module) == expected


def test_weights_and_dequantize_are_folded_into_their_reader() -> None:
    text = to_dot(quantized())
    assert "weight s8 per-channel 4x3x3x3".replace("x", TIMES) in line(text, '"stem/conv2d"')
    assert "weight_int8" not in text
    assert ":dq" not in text
    assert 'class="dequantize"' in line(text, '"x:q" -> "stem/conv2d"')


def test_a_weight_in_groups_is_drawn_so() -> None:
    graph = quantfx.capture(nn.Linear(64, 4).eval(), (torch.ones(2, 64),))
    prepared = quantfx.backends.get("x86", config="weight-only-4bit").prepare(graph)
    assert "weight f32 4x64, observe s8[-8,7] groups(32)".replace("x", TIMES) in to_dot(prepared)


def test_dequantize_with_other_qparams_than_its_quantize_is_marked() -> None:
    module = quantized()
    dq = calls(module, "quantized_decomposed.dequantize_per_tensor")[0]
    dq.update_arg(1, 0.2)
    assert 'class="mismatch" label=" dq ≠ q"' in line(to_dot(module), '"x:q" -> "stem/conv2d"')


def test_constant_of_another_module_is_named() -> None:
    module = capture(Residual(), torch.zeros(1, 3, 8, 8))
    first, second = calls(module, "conv2d")[1:]
    bias = second.args[2]
    first.update_arg(2, bias)
    assert "bias f32 4 (layer.0.conv2.bias)" in line(to_dot(module), '"layer.0.conv1/conv2d"')


def test_shared_qparams_share_name_and_colour() -> None:
    text = to_dot(quantized())
    colours = [
        re.findall(r'fillcolor="(.*?)"', line(text, f'"{n}:q"')) for n in ("relu", "max_pool2d")
    ]
    assert colours[0] == colours[1]
    assert "<q u8 = relu>" in line(text, '"max_pool2d:q"')
    # Equal numbers without a common group are a coincidence: all scales of this sample are equal.
    assert text.count("<q u8 = ") == 1


def test_two_quantizes_of_one_tensor_are_two_groups() -> None:
    graph = Graph()
    x = graph.placeholder("x")
    q = torch.ops.quantized_decomposed.quantize_per_tensor.default
    graph.output([graph.call_function(q, (x, s, 0, 0, 127, torch.uint8)) for s in (0.1, 0.2)])
    groups = [n.group for n in read_picture(GraphModule(nn.Module(), graph)).nodes.values()]
    assert groups == ["x:q#2" if i == 2 else "x" if i == 1 else "" for i in range(len(groups))]
    assert "<q u8[0,127]>" in to_dot(GraphModule(nn.Module(), graph))


def test_match_box_stands_where_its_nodes_have_a_common_module() -> None:
    module = capture(Residual(), torch.zeros(1, 3, 8, 8))
    (*_, conv2) = calls(module, "conv2d")
    (mean,) = calls(module, "mean")
    for node in (conv2, mean):
        node.meta[META_KEY] = mark("across", "m")
    text = to_dot(module)
    assert '\n  subgraph "cluster match layer.0.conv2/conv2d" {\n' in text
    assert "<b>conv2d</b> layer.0.conv2<br/>" in text


def test_symbolic_sizes_are_written_as_symbols() -> None:
    module = capture(Residual(), torch.zeros(2, 3, 8, 8), batch=True)
    (x,) = module.graph.find_nodes(op="placeholder")
    symbol = str(x.meta["val"].shape[0])
    assert not symbol.isdigit()
    assert f"f32 {symbol}x3x8x8".replace("x", TIMES) in line(to_dot(module), '"x"')


def test_nested_graphs_are_clusters_with_prefixed_names() -> None:
    text = to_dot(SAMPLES["cond"]())
    for branch in ("true", "false"):
        assert f'subgraph "cluster {branch}_graph_0"' in text
        assert f'label=" {branch}_fn" lhead="cluster {branch}_graph_0"' in text
        assert f'"{branch}_graph_0/linear" -> ' in text


@pytest.mark.parametrize("evil", ['a"b', "a\\", "<b>&amp;", "a\nb\x00c", "]};{", "\\N\\G", "é×"])  # noqa: RUF001
def test_labels_are_escaped(evil: str) -> None:
    graph = Graph()
    node = graph.call_function(ATEN.relu.default, (graph.placeholder("x"),))
    node.meta["nn_module_stack"] = {"a": (evil, nn.Module), "b": (f"{evil}.relu", nn.Module)}
    node.meta[META_KEY] = mark(evil, evil)
    graph.output(node)
    text = to_dot(GraphModule(nn.Module(), graph))
    quotes = re.sub(r"\\.", "", text).count('"')
    assert quotes % 2 == 0
    assert "\x00" not in text
    assert "<b><b>" not in text


def test_depth_collapses_deeper_modules_to_one_node_with_counts() -> None:
    module = quantized()
    assert "layer.0/" in drawn_nodes(to_dot(module, depth=1))
    text = to_dot(module, depth=0)
    assert "5 ops: 2 conv2d, 2 relu, 1 add; 1 q" in line(text, '"layer/"')
    assert "layer.0.conv1/conv2d" not in drawn_nodes(text)
    assert "stem/conv2d" in drawn_nodes(text)
    assert 'class="dequantize"' in line(text, '"max_pool2d:q" -> "layer/"')
    assert to_dot(module, depth=9) == to_dot(module)


@pytest.mark.parametrize("around", ["layer.0/add", "add", "max_pool2d:dq#2", "layer.0.relu/relu:q"])
def test_around_shows_a_neighbourhood_that_ends_in_stubs(around: str) -> None:
    text = to_dot(quantized(), around=around, radius=1)
    assert 'penwidth="2.5"' in text
    assert "layer.0/add" in drawn_nodes(text)
    assert 'class="stub"' in text
    assert "x" not in drawn_nodes(text)


def test_around_takes_a_module() -> None:
    text = to_dot(quantized(), around="layer.0", radius=0)
    assert {n for n in drawn_nodes(text) if 'class="stub"' not in line(text, f'"{n}"')} >= {
        "layer.0.conv1/conv2d",
        "layer.0.conv2/conv2d",
        "layer.0/add",
    }
    assert 'class="stub"' in line(text, '"max_pool2d"')
    assert to_dot(quantized(), around="layer.0.conv1", radius=99).count('penwidth="2.5"') == 1


def test_unknown_name_is_an_error_with_the_nearest() -> None:
    with refused("unknown-name", site="layer.0.conv3/conv2d"):
        to_dot(quantized(), around="layer.0.conv3/conv2d")


@pytest.mark.parametrize("wrong", [{"depth": -1}, {"radius": -1}])
def test_negative_numbers_are_errors(wrong: dict[str, int]) -> None:
    with refused("number-range"):
        to_dot(chain(1), depth=wrong.get("depth"), radius=wrong.get("radius", 3))


@pytest.mark.parametrize("modules", [1, 20, 200])
def test_overview_holds_its_limit(modules: int) -> None:
    module = chain(400, modules)
    assert len(drawn_nodes(to_dot(module))) == 402
    assert len(drawn_nodes(to_overview_dot(module, limit=100))) <= 100
    assert to_overview_dot(module, limit=500) == to_dot(module)
