"""Record the activations of linears by channel, as smooth-activations needs them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch.fx import GraphModule, Node

from quantfx.passes.errors import PipelineError
from quantfx.passes.graph.graphs import all_graphs
from quantfx.passes.graph.slots import read_slot
from quantfx.passes.observers.channel import RANGE_SEARCHES, ByChannel, RangeSearch
from quantfx.passes.pipeline.base import Context, Pass, PassResult
from quantfx.passes.quant.annotation import Annotation, annotated, annotation_of, set_annotation
from quantfx.passes.quant.spec import QuantSpec, Spec
from quantfx.patterns.errors import unknown_name
from quantfx.patterns.schema import resolve_op

LINEAR = resolve_op("aten.linear.default")


@dataclass(frozen=True)
class ObserveChannels(Pass):
    """Change the observer of every sharing group that holds only one input of linears.

    Unchanged: groups with another reader or an output (they could not be rescaled for the linears
    alone), tensors inside control flow, dynamic and per-channel specs, and linears whose weight is
    not an integer constant.

    Attributes:
        search: How the ranges of these tensors are found. With equalized channels clipping gains
            little: "histogram", which clips less, is 1.6 dB better than "mse" on MiniLM.
    """

    search: RangeSearch = "histogram"

    def __post_init__(self) -> None:
        if self.search not in RANGE_SEARCHES:
            raise unknown_name(PipelineError, "search", self.search, RANGE_SEARCHES)

    name = "observe-channels"
    requires = frozenset({"shared"})

    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Rewrite the annotations of the linears."""
        groups: dict[str, list[tuple[str, Node, str]]] = {}
        for path, graph_module in all_graphs(module):
            for node, annotation in annotated(graph_module.graph):
                for slot, group in annotation.groups:
                    groups.setdefault(group, []).append((path, node, slot))
        eligible = {group for group, sites in groups.items() if _is_smoothable(sites)}
        for node, annotation in annotated(module.graph):
            set_annotation(node, self._by_channel(annotation, eligible))
        return PassResult(stats={"tensors": len(eligible)})

    def _by_channel(self, annotation: Annotation, eligible: set[str]) -> Annotation:
        groups = dict(annotation.groups)

        def changed(slot: str, spec: Spec) -> Spec:
            if groups[slot] not in eligible or not isinstance(spec, QuantSpec):
                return spec
            return replace(spec, observer=ByChannel(self.search))

        inputs = tuple((slot, changed(slot, spec)) for slot, spec in annotation.inputs)
        return replace(annotation, inputs=inputs)


def _is_smoothable(sites: list[tuple[str, Node, str]]) -> bool:
    readers = [node for path, node, slot in sites if path == "" and slot == "input"]
    if len(readers) < len(sites) or not all(_is_quantized_linear(node) for node in readers):
        return False
    return len({read_slot(node, "input") for node in readers}) == 1


def _is_quantized_linear(node: Node) -> bool:
    annotation = annotation_of(node)
    specs = dict(annotation.inputs) if annotation else {}
    x, weight = specs.get("input"), specs.get("weight")
    return (
        node.target is LINEAR
        and isinstance(x, QuantSpec)
        and isinstance(weight, QuantSpec)
        and isinstance(x.observer, str)
        and not x.dynamic
        and x.axis is None
        and weight.axis == 0
        and read_slot(node, "weight").op == "get_attr"
        and read_slot(node, "input").op != "get_attr"
    )
