"""A graph in the form for comparison: operators, with scales at the slots that read them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from quantfx.passes.draw.canonical_order import canonical_names, canonical_order
from quantfx.passes.draw.fold import fold, observed_type, qparams, quantized_type, scheme_of
from quantfx.passes.draw.groups import first_tensors
from quantfx.passes.draw.labels import slots
from quantfx.passes.draw.names import shape_name, value_name
from quantfx.passes.graph.clone import HoldsGraph
from quantfx.passes.graph.dtypes import dtype_name
from quantfx.passes.graph.graphs import Site, all_graphs, constant, referent
from quantfx.passes.graph.operator_name import operator_name
from quantfx.passes.graph.scopes import module_scope
from quantfx.passes.observers.observer import is_observer
from quantfx.passes.quant.annotation import annotation_of
from quantfx.passes.quant.lowered import Lowered, lowered_of, region_of
from quantfx.passes.quant.qdq import has_qparams

FLOAT = "float"
_SAMPLED = 16  # values that distinguish weights


@dataclass(frozen=True, kw_only=True)
class ComparedSlot:
    """A tensor that an operator reads.

    Attributes:
        source: Canonical name of the operator that computes it; "" for a constant.
        stored: Form of the constant, e.g. ``f32 64x3x7x7``; "" for a computed tensor.
        sample: First values of the constant, its sum and its norm: equal for equal layers.
        quantization: ``u8``, ``observe u8[0,255]``; ``float`` if nothing quantizes it.
        qparams: Scale and zero point; "" if they are not numbers.
        group: First tensor with the same qparams; "" outside of groups.
    """

    source: str = ""
    stored: str = ""
    sample: tuple[float, ...] = ()
    quantization: str = FLOAT
    qparams: str = ""
    group: str = ""

    @property
    def values(self) -> str:
        """The values of the constant in two numbers."""
        return f"sum {self.sample[-2]:.9g}, norm {self.sample[-1]:.9g}" if self.sample else ""


@dataclass(frozen=True, kw_only=True)
class ComparedOperator:
    """One operator, input or output of a graph.

    Attributes:
        name: Canonical name, with the path of its graph if nested.
        site: Name of its node, with the path of its graph if nested.
        module: Path of the user's module.
        operator: E.g. ``aten.conv2d.default``, ``input``, ``output``.
        arguments: Literal arguments as text.
        value: Dtype and shape of the result.
        slots: The tensors that it reads, by slot.
        match: Template and mode of its match; "" outside of matches.
        kernel: The kernel that computes it; "" if unknown.
        stands_for: Sites of the q/dq graph that a kernel call computes.
        covers: All nodes of the q/dq graph that a kernel call replaces.
    """

    name: str
    site: str
    module: str
    operator: str
    arguments: str
    value: str
    slots: Mapping[str, ComparedSlot] = field(default_factory=dict[str, ComparedSlot])
    match: str = ""
    kernel: str = ""
    stands_for: tuple[str, ...] = ()
    covers: tuple[str, ...] = ()


def read_operators(
    module: GraphModule, kernels: Mapping[str, str] | None = None
) -> dict[str, ComparedOperator]:
    """Return the operators of all graphs of ``module`` by canonical name, in canonical order.

    Quantize, dequantize and observers get no rows of their own: slots describe them with the
    tensors that they read.

    Args:
        module: The graph.
        kernels: Kernel by site, for a q/dq graph; kernel calls name their own.
    """
    found: dict[str, ComparedOperator] = {}
    for path, graph_module in all_graphs(module):
        reader = _Reader(path, graph_module, kernels or {})
        found.update((each.name, each) for each in reader.operators())
    return found


class _Reader:
    def __init__(self, path: str, module: GraphModule, kernels: Mapping[str, str]) -> None:
        self._path, self._module, self._kernels = path, module, kernels
        self._order = canonical_order(module.graph)
        prefix = f"{path}/" if path else ""
        self._names = {n: prefix + name for n, name in canonical_names(self._order).items()}
        self._folded = fold(module, self._order)
        self._groups = first_tensors(module, self._order, self._names, self._folded)

    def operators(self) -> list[ComparedOperator]:
        return [self._read(node) for node in self._order if not self._is_of_edge(node)]

    def _is_of_edge(self, node: Node) -> bool:
        folded = self._folded
        return (
            node.op == "get_attr"
            or is_observer(node)
            or has_qparams(node)
            or node in folded.constants
            or node in folded.hidden
        )

    def _read(self, node: Node) -> ComparedOperator:
        site = str(Site(self._path, node.name))
        annotation, lowered = annotation_of(node), lowered_of(node)
        calls = region_of(node) or ((lowered,) if lowered else ())
        kernel = ", ".join(dict.fromkeys(call.kernel for call in calls))
        return ComparedOperator(
            name=self._names[node],
            site=site,
            module=module_scope(node),
            operator=self._operator(node),
            arguments=_arguments(node),
            value=value_name(node.meta.get("val")),
            slots={slot: self._slot(producer) for slot, producer in slots(node)},
            match=f"{annotation.template}, {annotation.mode}" if annotation else "",
            kernel=kernel or self._kernels.get(site, ""),
            stands_for=tuple(str(call.site) for call in calls),
            covers=tuple(self._covers(node, calls)),
        )

    def _covers(self, node: Node, calls: tuple[Lowered, ...]) -> Iterator[str]:
        for call in calls:
            yield from (str(Site(call.site.graph, name)) for name in call.covers)
        called = referent(self._module, node) if node.op == "call_module" else None
        if isinstance(called, HoldsGraph):  # a region: nodes keep their names inside
            yield from (str(Site(self._path, inner.name)) for inner in called.graph.graph.nodes)

    def _operator(self, node: Node) -> str:
        if node.op in ("placeholder", "output"):
            return "input" if node.op == "placeholder" else "output"
        if node.op == "call_module":
            called = referent(self._module, node)
            return type(called).__name__ if isinstance(called, nn.Module) else str(node.target)
        return operator_name(node)

    def _slot(self, node: Node) -> ComparedSlot:
        steps: list[Node] = []
        while (has_qparams(node) or is_observer(node)) and isinstance(node.args[0], Node):
            steps.append(node)
            node = node.args[0]
        told = ComparedSlot(
            quantization=self._quantization(steps),
            qparams=next(filter(None, map(self._numbers, steps)), ""),
            group=next(filter(None, (self._groups.get(step, "") for step in steps)), ""),
        )
        if node.op != "get_attr":
            return replace(told, source=self._names.get(node, node.name))
        value = constant(self._module, node)
        if value is None:
            return replace(told, stored=type(referent(self._module, node)).__name__)
        stored = shape_name(value.shape) if steps else value_name(value)
        return replace(told, stored=stored, sample=_sample(value))

    def _quantization(self, steps: list[Node]) -> str:
        for step in steps:
            if is_observer(step):
                return observed_type(self._module, step)
            return f"{quantized_type(step)} {scheme_of(step)}"
        return FLOAT

    def _numbers(self, step: Node) -> str:
        if is_observer(step):
            return ""
        scale, zero_point, *_ = qparams(step)
        if isinstance(scale, (int, float)):
            return f"scale {scale:.6g}, zero point {zero_point}"
        scales = constant(self._module, scale)
        if scales is None or not scales.numel():
            return "found in each call"
        zero_points = constant(self._module, zero_point)
        points = "" if zero_points is None else f", zero points {_range(zero_points)}"
        return f"{scales.numel()} scales {_range(scales)}{points}"


def _range(values: Tensor) -> str:
    low, high = float(values.min()), float(values.max())
    return f"{low:.6g}" if low == high else f"{low:.6g} to {high:.6g}"


def _sample(value: Tensor) -> tuple[float, ...]:
    if value.is_complex() or value.device.type == "meta":
        return ()
    flat = value.detach().reshape(-1).double()
    return (*flat[:_SAMPLED].tolist(), float(flat.sum()), float(flat.norm()))


def _arguments(node: Node) -> str:
    if node.op in ("placeholder", "output", "call_module"):
        return ""
    args, kwargs = map_arg((node.args, node.kwargs), lambda _: "·")
    return f"{_plain(args)} {_plain(dict(kwargs))}"


def _plain(value: object) -> str:
    return dtype_name(value) if isinstance(value, torch.dtype) else repr(value)
