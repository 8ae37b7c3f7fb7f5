"""Insert a recorder for every tensor that some config may quantize, in place of observers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.fx import GraphModule, Node

from quantfx.passes.config.recipe import Recipe
from quantfx.passes.graph.boundary import operands
from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.graphs import Site, all_graphs
from quantfx.passes.graph.non_data import data_nodes
from quantfx.passes.graph.slots import read_slot
from quantfx.passes.observe.insert_observers import Want, constant_groups, find_wanted, label_of
from quantfx.passes.observe.statistics.patches import LINEAR, Patches
from quantfx.passes.observe.statistics.recorders import (
    GroupRecorder,
    LayerRecorder,
    TensorRecorder,
)
from quantfx.passes.pipeline.base import Context, Pass, PassResult
from quantfx.passes.quant.spec import Concrete, QuantSpec
from quantfx.patterns.matcher import Matcher


@dataclass(frozen=True)
class RecordTensors(Pass):
    """``f(x) -> record(x); f(x)`` for tensors that observers would see, and for inputs of layers.

    Besides the tensors that the current config quantizes, it records all tensors that a static
    template of the recipe could quantize, so that other configs find theirs.

    Attributes:
        layers: Whether to record second moments of the inputs of layers.
    """

    layers: bool = True

    name = "record-tensors"
    requires = frozenset({"shared"})
    provides = frozenset({"observed"})

    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Insert the recorders."""
        recipe = context.require_recipe(self.name)
        graphs = dict(all_graphs(module))
        constant = constant_groups(graphs)
        data = data_nodes(module, operands(module))
        recording = _Recording()
        for path, graph_module in graphs.items():
            editor = Editor(graph_module, self.name, path)
            found = _tensors(graph_module, constant)
            possible = _possible(graph_module, recipe, data)
            layers = list(_layers(graph_module))
            for producer in possible | dict.fromkeys(found):
                recording.tensor(editor, producer, found.get(producer, {}))
            if self.layers:
                recording.layers(editor, layers)
        recording.connect()
        return PassResult(stats={"tensors": len(recording.tensors), "layers": recording.count})


@dataclass
class _Recording:
    tensors: list[TensorRecorder] = field(default_factory=list[TensorRecorder])
    members: dict[str, list[TensorRecorder]] = field(
        default_factory=dict[str, list[TensorRecorder]]
    )
    count: int = 0

    def tensor(self, editor: Editor, producer: Node, groups: Mapping[str, str]) -> None:
        """Insert the recorder of a tensor.

        Args:
            editor: Editor of the graph.
            producer: Producer of the tensor.
            groups: Sharing groups that observe it, with the label of the first site.
        """
        label = next(iter(groups.values()), label_of(producer))
        site = Site(editor.path, producer.name)
        by_channel = not editor.path and any(_is_linear(user, producer) for user in producer.users)
        recorder = TensorRecorder(site, label, required=bool(groups), by_channel=by_channel)
        self._insert(editor, recorder, producer, producer)
        self.tensors.append(recorder)
        for group in groups:
            self.members.setdefault(group, []).append(recorder)

    def layers(self, editor: Editor, layers: list[tuple[Node, Patches]]) -> None:
        """Insert the recorders of the layers of a graph."""
        shared: dict[tuple[Node, Patches], LayerRecorder] = {}
        for node, patches in layers:
            x = read_slot(node, "input")
            if (x, patches) not in shared:
                shared[x, patches] = LayerRecorder(patches)
                self._insert(editor, shared[x, patches], x, x)
            shared[x, patches].sites.append(Site(editor.path, node.name))

    def connect(self) -> None:
        """Let the recorders of a sharing group also record for the group."""
        made: dict[tuple[Site, ...], GroupRecorder] = {}
        for recorders in self.members.values():
            sites = tuple(sorted(each.own.sites[0] for each in recorders))
            if len(sites) == 1 or sites in made:
                continue
            made[sites] = GroupRecorder(sites, recorders[0].own.whole.label)
            for each in recorders:
                each.groups.append(made[sites])

    def _insert(self, editor: Editor, recorder: nn.Module, x: Node, after: Node) -> None:
        name = editor.free_name(f"statistics_{self.count}")
        self.count += 1
        editor.call_module(name, recorder, x, after=after)


def _tensors(module: GraphModule, constant: frozenset[str]) -> dict[Node, dict[str, str]]:
    """Return the groups that observe each activation, with their labels."""
    found: dict[Node, dict[str, str]] = {}
    for producer, want in find_wanted(module).items():
        for group, spec, label in _observed(producer, want):
            if group not in constant and isinstance(spec, QuantSpec) and spec.axis is None:
                found.setdefault(producer, {}).setdefault(group, label)
    return found


def _observed(producer: Node, want: Want) -> Iterator[tuple[str, Concrete, str]]:
    """Yield group, spec and label of each observer, as insert-observers puts them in."""
    if want.output is not None:
        yield (*want.output, label_of(producer))
    for group, readers in want.readers.items():
        node, slot, spec = readers[0]
        yield group, spec, f"{label_of(node)}.{slot}"


def _possible(module: GraphModule, recipe: Recipe, data: set[Node]) -> dict[Node, None]:
    """Return the tensors that static templates of ``recipe`` could quantize, even if claimed."""
    found: dict[Node, None] = {}
    patterns = recipe.patterns
    for template in patterns.templates:
        if template.mode != "static":
            continue
        for match in Matcher((template,), patterns.vocabulary).run(module.graph):
            roles = template.quant
            edges = [e for e in match.edges() if e.role in roles and not template.is_weight(e.role)]
            tensors = [edge.producer for edge in edges if edge.producer.op != "get_attr"]
            tensors += [match.output] if "out" in roles else []
            found |= dict.fromkeys(node for node in tensors if node in data and _is_float(node))
    return found


def _is_linear(node: Node, producer: Node) -> bool:
    """Whether ``node`` is a linear whose input observe-channels may record by channel."""
    if node.target is not LINEAR or read_slot(node, "input") is not producer:
        return False
    return read_slot(node, "weight").op == "get_attr"


def _is_float(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.is_floating_point()


def _layers(module: GraphModule) -> Iterator[tuple[Node, Patches]]:
    for node in module.graph.nodes:
        patches = Patches.of(module, node) if node.op == "call_function" else None
        if patches is not None:
            yield node, patches
