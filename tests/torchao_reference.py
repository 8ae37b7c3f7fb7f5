"""What torchao's X86InductorQuantizer does with a model: the reference that parity is measured by.

Its results are named by `edge_keys`, not by nodes, so that they compare with any graph of the same
model: other node names, dropout removed, in-place operators made functional, conv-bn folded.
Models come in eval mode.
"""

from __future__ import annotations

import copy
import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias
from unittest.mock import patch
from weakref import WeakKeyDictionary

import torch
import torch._inductor.config
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.fx import Graph, GraphModule, Node

if TYPE_CHECKING:
    from torchao.quantization.pt2e.quantizer import QuantizationSpecBase
    from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import X86InductorQuantizer

Inputs: TypeAlias = tuple[Tensor, ...]
Mode: TypeAlias = Literal["static", "dynamic", "fp16"]

OUTPUT = "out"
SAME_KIND = {"relu6": "hardtanh"}
COUNTED = ("quantize_per_tensor", "dequantize_per_tensor", "dequantize_per_channel")
ANNOTATION = "quantization_annotation"


class EdgeKey(NamedTuple):
    """Argument `argument` of the `nth` live operator of a kind; compares as a plain tuple.

    An argument is a position (`"0"`), one inside a list (`"0.1"`) or the result (`OUTPUT`).
    """

    kind: str
    nth: int
    argument: str


class EdgeSpec(NamedTuple):
    """How a tensor is quantized; compares as a plain tuple."""

    dtype: torch.dtype
    quant_min: int
    quant_max: int
    qscheme: torch.qscheme
    axis: int | None


@dataclass(frozen=True)
class Annotations:
    """What the quantizer wrote into the graph.

    Attributes:
        edges: Annotated input edges and their concrete specs; weights are among them, biases never.
        shared: An edge or output -> the edge whose observer it was told to use.
    """

    edges: dict[EdgeKey, EdgeSpec]
    shared: dict[EdgeKey, EdgeKey]


def edge_keys(graph: Graph) -> dict[tuple[str, str], EdgeKey]:
    """(node name, argument) -> key, for every node that a live operator reads.

    An operator is live if an output depends on it: a dead one may be gone from the other graph.
    """
    return {
        (node.name, argument): EdgeKey(kind, nth, argument)
        for node, (kind, nth) in _node_keys(graph).items()
        for argument, value in _arguments(node)
        if isinstance(value, Node)
    }


def annotate(model: nn.Module, example_inputs: Inputs) -> Annotations:
    """Annotate as `prepare_pt2e` does, after folding batch norms."""
    keys = _node_keys(_export_and(_fold_and_annotate, model, example_inputs).graph)
    edges: dict[EdgeKey, EdgeSpec] = {}
    shared: dict[EdgeKey, EdgeKey] = {}
    for node, (kind, nth) in keys.items():
        if ANNOTATION not in node.meta:
            continue
        specs = node.meta[ANNOTATION].input_qspec_map
        sites = [
            (argument, specs[value])
            for argument, value in _arguments(node)
            if isinstance(value, Node) and specs.get(value) is not None
        ]
        edges |= {EdgeKey(kind, nth, argument): _concrete(spec) for argument, spec in sites}
        for argument, spec in [*sites, (OUTPUT, node.meta[ANNOTATION].output_qspec)]:
            if (edge := _shared_edge(spec)) is not None:
                shared[EdgeKey(kind, nth, argument)] = _first_key(edge, keys)
    return Annotations(edges, shared)


def annotated_edges(model: nn.Module, example_inputs: Inputs) -> dict[EdgeKey, EdgeSpec]:
    """The input edges that torchao annotates."""
    return annotate(model, example_inputs).edges


def converted(
    model: nn.Module, example_inputs: Inputs, calibration: Iterable[Inputs], mode: Mode = "static"
) -> GraphModule:
    """torchao's q/dq graph of the model, calibrated on these batches."""
    prepared = _export_and(lambda module: _prepare(module, mode), model, example_inputs)
    with torch.no_grad():
        for batch in calibration:
            prepared(*batch)
    return convert(prepared)


def convert(prepared: GraphModule) -> GraphModule:
    """torchao's `convert_pt2e`, which looks for no trained layers of kinds that are not there.

    For each of four kinds of convolutions it exports twenty-four patterns, which takes seconds.
    """
    from torchao.quantization.pt2e import qat_utils
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

    fold = qat_utils._fold_conv_bn_qat_helper

    def fold_what_is_there(
        module: GraphModule, layer: Callable[..., Tensor], *args: object, **kwargs: object
    ) -> GraphModule:
        kinds = {kind for kind, _ in _node_keys(module.graph).values()}
        return fold(module, layer, *args, **kwargs) if layer.__name__ in kinds else module

    with patch.object(qat_utils, "_fold_conv_bn_qat_helper", fold_what_is_there):
        quantized: GraphModule = convert_pt2e(prepared)
    return quantized


def converted_counts(
    model: nn.Module, example_inputs: Inputs, calibration: Iterable[Inputs]
) -> Counter[str]:
    """How many nodes of each kind in `COUNTED` torchao's q/dq graph has."""
    graph = converted(model, example_inputs, calibration).graph
    kinds = (kind for kind, _ in _node_keys(graph).values())
    return Counter(kind for kind in kinds if kind in COUNTED)


def _node_keys(graph: Graph) -> dict[Node, tuple[str, int]]:
    live = _live(graph)
    seen: Counter[str] = Counter()
    keys: dict[Node, tuple[str, int]] = {}
    for node in graph.nodes:
        if node in live and isinstance(node.target, OpOverload):
            name = node.target.overloadpacket.__name__.removesuffix("_")
            kind = SAME_KIND.get(name, name)
            keys[node] = (kind, seen[kind])
            seen[kind] += 1
    return keys


def _live(graph: Graph) -> set[Node]:
    live: set[Node] = set()
    pending = [graph.output_node()]
    while pending:
        node = pending.pop()
        if node not in live:
            live.add(node)
            pending += node.all_input_nodes
    return live


def _arguments(node: Node) -> Iterator[tuple[str, object]]:
    """Each argument under its position in the schema, however it was passed."""
    assert isinstance(node.target, OpOverload)
    names = [argument.name for argument in node.target._schema.arguments]
    by_name = [(names.index(name), value) for name, value in node.kwargs.items()]
    for position, value in [*enumerate(node.args), *by_name]:
        if isinstance(value, Sequence) and not isinstance(value, str):
            yield from ((f"{position}.{index}", item) for index, item in enumerate(value))
        else:
            yield str(position), value


def _shared_edge(spec: QuantizationSpecBase | None) -> tuple[Node, Node] | None:
    """The (producer, user) of a `SharedQuantizationSpec`; X86 never shares with an output."""
    edge: tuple[Node, Node] | None = getattr(spec, "edge_or_node", None)
    return edge


def _concrete(spec: QuantizationSpecBase) -> EdgeSpec:
    while (edge := _shared_edge(spec)) is not None:
        producer, user = edge
        spec = user.meta[ANNOTATION].input_qspec_map[producer]
    return EdgeSpec(spec.dtype, spec.quant_min, spec.quant_max, spec.qscheme, spec.ch_axis)


def _first_key(edge: tuple[Node, Node], keys: dict[Node, tuple[str, int]]) -> EdgeKey:
    producer, user = edge
    argument = next(argument for argument, value in _arguments(user) if value is producer)
    return EdgeKey(*keys[user], argument)


# By strictness, of models that are asked about several times, always with the same inputs.
_EXPORTS: WeakKeyDictionary[nn.Module, dict[bool, nn.Module]] = WeakKeyDictionary()


def _export_and(
    step: Callable[[GraphModule], GraphModule], model: nn.Module, example_inputs: Inputs
) -> GraphModule:
    """Apply the step to the default export, or to the strict one where the quantizer refuses it.

    In a default export X86InductorQuantizer finds partitions by module path, and raises on modules
    called more than once, such as the one ReLU of a residual block.
    """
    try:
        return step(_export(model, example_inputs, strict=False))
    except ValueError:
        return step(_export(model, example_inputs, strict=True))


def _export(model: nn.Module, example_inputs: Inputs, *, strict: bool) -> GraphModule:
    exports = _EXPORTS.setdefault(model, {})
    if strict not in exports:
        with torch.no_grad():
            program = torch.export.export(model, example_inputs, strict=strict)
        exports[strict] = program.module(check_guards=False)
    module = copy.deepcopy(exports[strict])
    assert isinstance(module, GraphModule)
    # X86InductorQuantizer raises IndexError on a dead linear, such as an unused pooler.
    module.graph.eliminate_dead_code()
    return module


def _fold_and_annotate(module: GraphModule) -> GraphModule:
    from torchao.quantization.pt2e.utils import _fuse_conv_bn_, _fuse_linear_bn_

    _fuse_conv_bn_(module)
    _fuse_linear_bn_(module)
    quantizer = _quantizer()
    annotated: GraphModule = quantizer.annotate(quantizer.transform_for_annotation(module))
    return annotated


def _prepare(module: GraphModule, mode: Mode) -> GraphModule:
    from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e

    prepared: GraphModule = prepare_pt2e(module, _quantizer(mode))
    return prepared


def _quantizer(mode: Mode = "static") -> X86InductorQuantizer:
    x86 = _import_x86()
    config = {
        "static": x86.get_default_x86_inductor_quantization_config,
        "dynamic": lambda: x86.get_default_x86_inductor_quantization_config(is_dynamic=True),
        "fp16": x86.get_x86_inductor_linear_dynamic_fp16_config,
    }[mode]
    return x86.X86InductorQuantizer().set_global(config())


@functools.cache
def _import_x86() -> ModuleType:
    """Import the quantizer without what its import does to Inductor, which other tests run."""
    passes = "torchao.quantization.pt2e.inductor_passes"
    config = torch._inductor.config
    with (
        config.patch(pre_grad_custom_pass=config.pre_grad_custom_pass),
        patch(f"{passes}.x86._register_quantization_weight_pack_pass"),
        patch(f"{passes}.lowering._register_quantize_dequantize_fp8_lowering"),
    ):
        return import_module("torchao.quantization.pt2e.quantizer.x86_inductor_quantizer")
