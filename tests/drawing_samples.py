"""Small graphs for the tests of drawings, and the changes that must or must not show in them."""

from __future__ import annotations

import operator
import random
import re
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import Argument, map_arg

from quantfx.passes.graph.graphs import all_graphs, nested
from quantfx.passes.observers.observer import Observer
from quantfx.passes.quant import qdq
from quantfx.passes.quant.annotation import GROUP_KEY, META_KEY, Annotation
from quantfx.passes.quant.qparams import QParams
from quantfx.passes.quant.spec import QuantSpec

ATEN = torch.ops.aten
ACTIVATION = QuantSpec(torch.uint8, 0, 255)
WEIGHT = QuantSpec(torch.int8, -128, 127, symmetric=True, axis=0, observer="min_max")


def mark(template: str, match: str) -> Annotation:
    """Return an annotation of which only what drawings read matters."""
    return Annotation(template, match, kind="", kernel="", reach="fused")


class Block(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(4, 4, 3, padding=1)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.conv2(self.relu(self.conv1(x))) + x)
        return out


class Residual(nn.Module):
    """Stem, pool, one block, classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.layer = nn.Sequential(Block())
        self.fc = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.max_pool2d(torch.relu(self.stem(x)), 2)
        y = self.layer(y)
        logits: Tensor = self.fc(y.mean((2, 3)))
        return logits


class Branches(nn.Module):
    """One of two linear heads, chosen by the data."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(4, 2)
        self.right = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        def right(t: Tensor) -> Tensor:
            out: Tensor = self.right(t) - 1.0
            return out

        out: Tensor = torch.cond(x.sum() > 0, self.left, right, (x,))
        return out


class Einsum(nn.Module):
    """An operator whose literal holds what labels must escape."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.einsum("bij,bjk->bik", x, y)


class Fixed(Observer):
    """An observer that is only looked at."""

    def observe(self, x: Tensor) -> None:
        """Record nothing."""

    @property
    def observed(self) -> bool:
        return False

    def calculate_qparams(self) -> QParams:
        raise NotImplementedError


def capture(model: nn.Module, *example: Tensor, batch: bool = False) -> GraphModule:
    """Return the exported graph; ``batch`` makes the first size of the first input symbolic."""
    shapes = ({0: torch.export.Dim("batch")},) if batch else None
    program = torch.export.export(model.eval(), example, dynamic_shapes=shapes, strict=False)
    module = program.module(check_guards=False)
    assert isinstance(module, GraphModule)
    module.graph.eliminate_dead_code()
    return module


def floating() -> GraphModule:
    """``Residual`` in float."""
    return capture(Residual(), torch.zeros(1, 3, 8, 8))


def cond() -> GraphModule:
    """``Branches``: a graph with two nested ones."""
    return capture(Branches(), torch.zeros(3, 4))


def quantized() -> GraphModule:
    """``Residual`` with q/dq and match boxes, the weights folded to int8."""
    module = floating()
    pairs: dict[Node, Node] = {}
    for node in calls(module, "conv2d", "linear"):
        _fold_weight(module, node)
        _quantize_input(node, 0, pairs)
        chain = [node]
        (user,) = node.users
        if "add" in str(user.target):
            _quantize_input(user, 1, pairs)
            chain.append(user)
            (user,) = user.users
        if "relu" in str(user.target):
            chain.append(user)
        template = "_".join(str(n.target).split(".")[1] for n in chain)
        for part in chain:
            part.meta[META_KEY] = mark(template, f"match of {node.name}")
    for node in calls(module, "max_pool2d"):
        (tensor,) = node.all_input_nodes
        _quantize_input(node, 0, pairs)
        for shared in (tensor, node):
            pairs[shared].meta[GROUP_KEY] = "in = out of max_pool2d"
    module.graph.lint()
    return module


def observed() -> GraphModule:
    """``Residual`` with observers; those of the pool's output are one with that of the input."""
    module = floating()
    shared = Fixed(ACTIVATION)
    for node in calls(module, "conv2d", "linear"):
        _observe_input(module, node, 1, Fixed(WEIGHT))
    for node in calls(module, "conv2d", "linear"):
        pooled = node.all_input_nodes[0].name in ("x", "max_pool2d")
        _observe_input(module, node, 0, shared if pooled else Fixed(ACTIVATION))
    (add,) = calls(module, "add")
    _observe_input(module, add, 1, shared)
    module.graph.lint()
    return module


def dynamic() -> GraphModule:
    """A linear whose input is quantized with qparams computed from it."""
    module = capture(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)), torch.zeros(2, 4))
    ops = torch.ops.quantized_decomposed
    graph = module.graph
    for node in calls(module, "linear"):
        x, integers = node.args[0], (0, 255, torch.uint8)
        with graph.inserting_before(node):
            chosen = graph.call_function(
                ops.choose_qparams.tensor, (x, 0, 255, 2**-12, torch.uint8)
            )
            qparams = [graph.call_function(operator.getitem, (chosen, index)) for index in (0, 1)]
            q = graph.call_function(ops.quantize_per_tensor.tensor, (x, *qparams, *integers))
            dq = graph.call_function(ops.dequantize_per_tensor.tensor, (q, *qparams, *integers))
        node.update_arg(0, dq)
    graph.lint()
    return module


def counting() -> GraphModule:
    """Two counters that nothing reads are increased beside the computation of the output."""
    graph = Graph()
    x = graph.placeholder("x")
    one, two = graph.get_attr("steps"), graph.get_attr("calls")
    graph.call_function(ATEN.add_.Tensor, (one, 1))
    graph.call_function(ATEN.add_.Tensor, (two, 1))
    graph.call_function(ATEN.neg.default, (x,))
    graph.output(graph.call_function(ATEN.relu.default, (x,)))
    root = nn.Module()
    root.register_buffer("steps", torch.zeros(()))
    root.register_buffer("calls", torch.zeros(()))
    return GraphModule(root, graph)


def chain(length: int, modules: int = 1) -> GraphModule:
    """Return ``length`` operations, evenly in ``modules`` modules of the top level."""
    graph = Graph()
    node = graph.placeholder("x")
    for index in range(length):
        node = graph.call_function(ATEN.relu.default if index % 2 else ATEN.neg.default, (node,))
        path = f"part{index * modules // length}" if modules > 1 else ""
        node.meta["nn_module_stack"] = {path: (path, nn.Module)}
    graph.output(node)
    return GraphModule(nn.Module(), graph)


SAMPLES: dict[str, Callable[[], GraphModule]] = {
    "floating": floating,
    "quantized": quantized,
    "observed": observed,
    "dynamic": dynamic,
    "cond": cond,
    "counting": counting,
}


def calls(module: GraphModule, *ops: str) -> list[Node]:
    """Return the calls of operators whose short name starts with one of ``ops``."""
    nodes = [n for n in module.graph.nodes if n.op == "call_function"]
    return [n for n in nodes if str(n.target).removeprefix("aten.").startswith(ops)]


def drawn_nodes(text: str) -> list[str]:
    """Return the names of the nodes in DOT text."""
    return re.findall(r'^ *"([^"]*)" \[', text, flags=re.M)


def shuffled(module: GraphModule, seed: int) -> GraphModule:
    """Return an equal graph in another topological order, with other node names."""
    rng = random.Random(seed)
    graph = Graph()
    copies: dict[Node, Node] = {}
    waiting = list(module.graph.nodes)
    while waiting:
        ready = [n for n in waiting if all(p in copies for p in n.all_input_nodes)]
        # The order of the inputs is the signature, and the output stands last.
        inputs = [n for n in ready if n.op == "placeholder"]
        ready = inputs[:1] + [n for n in ready if n.op not in ("placeholder", "output")] or ready
        node = rng.choice(ready)
        waiting.remove(node)
        args = map_arg(node.args, lambda n: copies[n])
        kwargs = map_arg(node.kwargs, lambda n: copies[n])
        assert isinstance(args, tuple)
        assert isinstance(kwargs, dict)
        name = f"n{rng.getrandbits(40):x}"
        copies[node] = graph.create_node(node.op, node.target, args, kwargs, name)
        copies[node].meta = dict(node.meta)
    copy = GraphModule(module, graph)
    for node, inner in nested(module):
        setattr(copy, str(node.target), shuffled(inner, rng.getrandbits(40)))
    return copy


def every_edge(module: GraphModule) -> Iterator[tuple[Graph, Node, int]]:
    """Yield every edge of every graph: its reader, and which of the reader's inputs it is."""
    for _, graph_module in all_graphs(module):
        for node in list(graph_module.graph.nodes):
            live = node.users or node.op == "output"
            for index in range(len(_inputs(node)) if live else 0):
                yield graph_module.graph, node, index


def rewire(node: Node, index: int, change: Callable[[Node], Argument]) -> None:
    """Replace input number ``index`` of ``node`` by ``change`` of it."""
    seen = iter(range(len(_inputs(node))))
    arguments = map_arg((node.args, node.kwargs), lambda n: change(n) if next(seen) == index else n)
    assert isinstance(arguments, tuple)
    args, kwargs = arguments
    assert isinstance(args, tuple)
    assert isinstance(kwargs, dict)
    node.args, node.kwargs = args, kwargs


def _inputs(node: Node) -> list[Node]:
    found: list[Node] = []

    def add(n: Node) -> Node:
        found.append(n)
        return n

    map_arg((node.args, node.kwargs), add)
    return found


def _quantize_input(node: Node, slot: int, pairs: dict[Node, Node]) -> None:
    tensor = node.args[slot]
    assert isinstance(tensor, Node)
    qparams = (0.1, 0, 0, 255, torch.uint8)
    with node.graph.inserting_before(node):
        if tensor not in pairs:
            pairs[tensor] = node.graph.call_function(qdq.QUANTIZE_PER_TENSOR, (tensor, *qparams))
        dq = node.graph.call_function(qdq.DEQUANTIZE_PER_TENSOR, (pairs[tensor], *qparams))
    node.update_arg(slot, dq)


def _observe_input(module: GraphModule, node: Node, slot: int, observer: Observer) -> None:
    count = sum(n.op == "call_module" for n in module.graph.nodes)
    target = f"activation_post_process_{count}"
    module.add_module(target, observer)
    with module.graph.inserting_before(node):
        node.update_arg(slot, module.graph.call_module(target, (node.args[slot],)))


def _fold_weight(module: GraphModule, node: Node) -> None:
    weight = node.args[1]
    assert isinstance(weight, Node)
    target = str(weight.target)
    owner = module.get_submodule(target.rpartition(".")[0])
    value = module.get_parameter(target)
    buffers = {
        "weight_int8": torch.zeros_like(value, dtype=torch.int8),
        "weight_scale": torch.ones(value.shape[0]),
        "weight_zero_point": torch.zeros(value.shape[0], dtype=torch.int64),
    }
    prefix = target.removesuffix("weight")
    with module.graph.inserting_before(node):
        for name, tensor in buffers.items():
            owner.register_buffer(name, tensor)
        stored = [module.graph.get_attr(f"{prefix}{name}") for name in buffers]
        arguments: tuple[Argument, ...] = (*stored, 0, -128, 127, torch.int8)
        node.update_arg(1, module.graph.call_function(qdq.DEQUANTIZE_PER_CHANNEL, arguments))
    module.graph.erase_node(weight)
