"""Measure what the passes cost: CPU seconds of matching, preparing and converting large graphs.

Run it with ``make bench``; timings are for reading side by side, never for assertions in CI.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.fx import Graph, GraphModule

from quantfx.backends.x86 import pattern_set, x86
from quantfx.passes.pipeline.record import records_of

_TINY = 4


def conv_chain(blocks: int) -> GraphModule:
    """Return ``blocks`` residual blocks of conv-relu-conv-add-relu (5 operators each).

    The graph is built directly, as ``capture`` would leave it: weights of 4x4x1x1, input
    (1, 4, 4, 4), fake values on every node.
    """
    root = nn.Module()
    graph = Graph()
    aten = torch.ops.aten
    value = torch.empty(1, _TINY, _TINY, _TINY, device="meta")

    def call(target: Callable[..., object], *args: object) -> object:
        node = graph.create_node("call_function", target, args)  # type: ignore[arg-type]  # nodes
        node.meta["val"] = value
        return node

    def weight(name: str) -> object:
        tensor = torch.randn(_TINY, _TINY, 1, 1)
        root.register_buffer(name, tensor)
        node = graph.get_attr(name)
        node.meta["val"] = tensor
        return node

    placeholder = graph.placeholder("x")
    placeholder.meta["val"] = value
    x: object = placeholder
    for index in range(blocks):
        y = call(aten.conv2d.default, x, weight(f"a{index}"))
        y = call(aten.conv2d.default, call(aten.relu.default, y), weight(f"b{index}"))
        x = call(aten.relu.default, call(aten.add.Tensor, y, x))
    graph.output(x)  # type: ignore[arg-type]  # a node
    return GraphModule(root, graph)


def cpu_seconds(function: Callable[[], object]) -> float:
    """Return the CPU seconds of the fastest of three calls."""
    times: list[float] = []
    for _ in range(3):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times)


def _matching() -> Table:
    table = Table("nodes", "matches", "CPU s", title="matching, the whole x86 recipe")
    for blocks in (143, 1429, 14286):
        graph = conv_chain(blocks).graph
        seconds, matches = _match(graph)
        table.add_row(str(len(graph.nodes)), str(matches), f"{seconds:.3f}")
    return table


def _match(graph: Graph) -> tuple[float, int]:
    matcher = pattern_set().matcher()
    return cpu_seconds(lambda: matcher.run(graph)), len(matcher.run(graph))


def _passes() -> Table:
    table = Table("ops", "prepare ms/op", "convert ms/op", title="pipelines, CPU time")
    for blocks in (60, 200, 600):
        prepare, convert = _prepare_and_convert(conv_chain(blocks))
        ops = 5 * blocks
        table.add_row(str(ops), f"{prepare / ops * 1e3:.3f}", f"{convert / ops * 1e3:.3f}")
    return table


def _prepare_and_convert(module: GraphModule) -> tuple[float, float]:
    # The observers' search is not measured here.
    backend = x86(observer="min_max", weight_observer="min_max")
    prepared = backend.prepare(module)
    prepared(torch.randn(1, _TINY, _TINY, _TINY))
    return (
        cpu_seconds(lambda: backend.prepare(module)),
        cpu_seconds(lambda: backend.convert(prepared)),
    )


def _slowest() -> Table:
    table = Table("pass", "ms", title="passes at 3000 ops")
    backend = x86(observer="min_max")
    prepared = backend.prepare(conv_chain(600))
    prepared(torch.randn(1, _TINY, _TINY, _TINY))
    for record in records_of(backend.convert(prepared)):
        table.add_row(record.name, f"{record.seconds * 1e3:.1f}")
    return table


def main() -> None:
    """Print every table."""
    torch.set_num_threads(1)
    console = Console()
    for table in (_matching(), _passes(), _slowest()):
        console.print(table)


if __name__ == "__main__":
    main()
