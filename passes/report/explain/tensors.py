"""The quantized tensors of an operator: who asked for them, and their scales."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor
from torch.fx import GraphModule, Node

from quantfx.passes.graph.graphs import Site, constant
from quantfx.passes.graph.slots import read_slot
from quantfx.passes.observers.derived import DerivedFrom
from quantfx.passes.observers.fixed import FixedQParams
from quantfx.passes.observers.observer_name import observer_name
from quantfx.passes.quant.annotation import annotation_of
from quantfx.passes.quant.qdq import CAST, dequantizes, dtype_of, quantizes
from quantfx.passes.quant.spec import CastSpec, QuantSpec, Spec
from quantfx.passes.report.explain.explanation import TensorPart, TensorQuantization
from quantfx.passes.report.explain.trail import Trail
from quantfx.patterns.schema import argument_value

_TRAINED = "settle-modes"  # runs on trained graphs only


def tensor_parts(
    path: str, graph_module: GraphModule, node: Node, trail: Trail
) -> Iterator[TensorPart]:
    """Yield the quantized tensors of ``node``: arguments, result, weights that a kernel packs."""
    annotation = annotation_of(node)
    if annotation is None:
        return
    asked = trail.asked[str(Site(path, node.name))]
    groups = dict(annotation.groups)
    slots: list[tuple[str, Spec, Node | None, Node]] = []
    for slot, spec in annotation.inputs:
        read = read_slot(node, slot)
        slots.append((slot, spec, read if dequantizes(read) or read.target is CAST else None, read))
    if annotation.output is not None:
        written = next((user for user in node.users if quantizes(user)), None)
        slots.append(("", annotation.output, written, node))
    for slot, spec, holder, read in slots:
        site = str(Site(path, node.name, slot))
        name, rules = asked.get(slot, ("", ""))
        yield TensorPart(
            site=site,
            slot=slot,
            reads=str(Site(path, _source(read).name)),
            spec=str(spec),
            spec_name=name,
            asked_by=rules,
            observer=_observer(spec, trained=_TRAINED in trail.passes),
            group=groups.get(slot, ""),
            qparams=None if holder is None else _quantization(graph_module, holder, spec),
            reason=_reason(trail, site, groups.get(slot, ""), read)
            or ("" if holder is not None else "the graph has no quantize at this place"),
        )
    if annotation.match == node.name:
        yield from _packed(path, node, annotation.packs, asked)


def _packed(
    path: str,
    node: Node,
    packs: tuple[tuple[str, Spec], ...],
    asked: Mapping[str, tuple[str, str]],
) -> Iterator[TensorPart]:
    for role, spec in packs:
        name, rules = asked.get(role, ("", ""))
        yield TensorPart(
            site=str(Site(path, node.name, role)),
            slot=role,
            reads="",
            spec=str(spec),
            spec_name=name,
            asked_by=rules,
            reason="its kernel quantizes and packs it itself, so no scale of it is in the graph",
        )


def _reason(trail: Trail, site: str, group: str, read: Node) -> str:
    """Return a pass's remark about the scale of a tensor, its group or its weight."""
    shared = trail.groups.get(group)
    sites = (site,) if shared is None else shared.members
    source = _source(read)
    weight = str(source.target).rpartition("_")[0] if source.op == "get_attr" else ""
    return next((trail.scales[each] for each in (*sites, weight) if each in trail.scales), "")


def _source(node: Node) -> Node:
    """Return the node that computes or stores the tensor, before q/dq."""
    while dequantizes(node) or quantizes(node) or node.target is CAST:
        node = node.all_input_nodes[0]
    return node


def _observer(spec: Spec, *, trained: bool) -> str:
    if not isinstance(spec, QuantSpec) or spec.dynamic:
        return ""
    if trained and not isinstance(spec.observer, DerivedFrom | FixedQParams):
        return "training"
    return observer_name(spec.observer)


def _quantization(module: GraphModule, node: Node, spec: Spec) -> TensorQuantization:
    """Return the qparams of a q or dq node of ``module``."""
    if isinstance(spec, CastSpec) or node.target is CAST:
        dtype = spec.dtype if isinstance(spec, CastSpec) else dtype_of(node)
        return TensorQuantization(dtype=str(dtype).removeprefix("torch."), scheme="cast")
    names = ("quant_min", "quant_max", "dtype")
    quant_min, quant_max, dtype = (argument_value(node, name) for name in names)
    name = str(dtype).removeprefix("torch.")
    scheme = _scheme(spec)
    given = (argument_value(node, each) for each in _qparam_names(node))
    scale, zero_point = (_numbers(module, each) for each in given)
    if scale is None or zero_point is None or not scale.numel():
        return TensorQuantization(
            dtype=name, scheme=scheme, quant_min=quant_min, quant_max=quant_max
        )
    low, high = ((end - zero_point) * scale for end in (quant_min, quant_max))
    return TensorQuantization(
        dtype=name,
        scheme=scheme,
        quant_min=quant_min,
        quant_max=quant_max,
        channels=scale.numel(),
        scale=float(scale.median()),
        scale_min=float(scale.min()),
        scale_max=float(scale.max()),
        zero_point=int(zero_point.flatten()[0]),
        low=float(low.min()),
        high=float(high.max()),
    )


def _qparam_names(node: Node) -> tuple[str, str]:
    """Return the argument names of scale and zero point, which are plural per channel."""
    plural = "per_channel" in str(node.target)
    return ("scales", "zero_points") if plural else ("scale", "zero_point")


def _numbers(module: GraphModule, value: object) -> Tensor | None:
    """Return stored or literal numbers; None for numbers that are found in each call."""
    if isinstance(value, Node):
        stored = constant(module, value)
        return None if stored is None else stored.detach().double()
    if isinstance(value, (int, float)):
        return Tensor([value]).double()
    return None


def _scheme(spec: Spec) -> str:
    if not isinstance(spec, QuantSpec):
        return "per-tensor affine"
    where = "per-tensor" if spec.axis is None else f"per-channel({spec.axis})"
    where += "" if spec.group is None else f" groups({spec.group})"
    when = ", found in each call" if spec.dynamic else ""
    return f"{where} {'symmetric' if spec.symmetric else 'affine'}{when}"
