"""Nodes of a graph that are not drawn separately, and what is written in their place.

1. A constant (``weight``), with its observer, quantize and dequantize: a line in its reader.
2. ``dq`` of an activation: part of its edge. 3. ``choose_qparams`` and its results: the word
"dynamic" in the pill of their ``q``. 4. Constants that hold a scale or zero point: nothing, since
drawings show no qparams. 5. A node that packs a constant for a kernel: the word "packed" in the
constant's line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor
from torch._ops import OpOverload
from torch.fx import GraphModule, Node

from quantfx.passes.draw.names import range_name, shape_name
from quantfx.passes.graph.dtypes import dtype_name
from quantfx.passes.graph.graphs import referent
from quantfx.passes.layers.saved_flags import SavedFlags
from quantfx.passes.lower.keep_packed import PackedWeight, is_prepack
from quantfx.passes.observers.learned_fake_quantize import LearnedFakeQuantize
from quantfx.passes.observers.observer import Observer, is_observer
from quantfx.passes.observers.placeholder import PlaceholderObserver
from quantfx.passes.quant.qdq import (
    CAST,
    dequantizes,
    dtype_of,
    finds_range,
    has_qparams,
    quantizes,
)
from quantfx.passes.quant.spec import CastSpec
from quantfx.patterns.schema import argument_value, arguments

_SCALE = ("scale", "scales")
_ZERO_POINT = ("zero_point", "zero_points")
_QPARAMS: tuple[tuple[str, ...], ...] = (
    _SCALE,
    _ZERO_POINT,
    ("axis",),
    ("quant_min",),
    ("quant_max",),
    ("dtype",),
)


@dataclass(frozen=True)
class Constant:
    """A constant, as written in its reader.

    Attributes:
        target: Attribute that stores it.
        dtype: Dtype of the stored value.
        shape: Shape of the stored value.
        scheme: What shares a scale, if integers are stored and dequantized; see ``scheme_of``.
        steps: Further steps on its way to the reader: ``observe s8[-128,127]``.
    """

    target: str
    dtype: str
    shape: str
    scheme: str = ""
    steps: tuple[str, ...] = ()

    def __str__(self) -> str:
        stored = " ".join(word for word in (self.dtype, self.scheme, self.shape) if word)
        return ", ".join([stored, *self.steps])


@dataclass
class Folded:
    """The result of ``fold``.

    Attributes:
        constants: Constant, or the last node that it passes through -> its text.
        graphs: get_attr of a nested graph -> that graph.
        dequantizes: Folded dq -> whether it has the same qparams as its q.
        dynamic: Activation q whose qparams are computed from its input.
        hidden: Nodes that are not drawn and leave no text.
    """

    constants: dict[Node, Constant] = field(default_factory=dict[Node, Constant])
    graphs: dict[Node, GraphModule] = field(default_factory=dict[Node, GraphModule])
    dequantizes: dict[Node, bool] = field(default_factory=dict[Node, bool])
    dynamic: set[Node] = field(default_factory=set[Node])
    hidden: set[Node] = field(default_factory=set[Node])

    def __contains__(self, node: Node) -> bool:
        """Whether ``node`` is not drawn separately."""
        return any(
            node in group for group in (self.constants, self.graphs, self.dequantizes, self.hidden)
        )


def fold(module: GraphModule, order: Sequence[Node]) -> Folded:
    """Decide which nodes of a canonical order are not drawn separately."""
    folded = Folded()
    for node in order:
        if node.op == "get_attr":
            value = referent(module, node)
            if isinstance(value, GraphModule):
                folded.graphs[node] = value
            else:
                folded.constants[node] = _describe_stored(str(node.target), value)
        elif has_qparams(node) or is_observer(node):
            _fold_step(module, node, folded)
        elif node.target is CAST and node.args[0] in folded.constants:
            constant = folded.constants[node.all_input_nodes[0]]
            folded.constants[node] = _with_step(constant, f"to {dtype_name(dtype_of(node))}")
        elif _packs(module, node) and node.args[0] in folded.constants:
            constant = folded.constants[node.all_input_nodes[0]]
            folded.constants[node] = _with_step(constant, "packed")
    live = set(order)
    for node in order:
        if quantizes(node) and node not in folded.constants:
            _fold_dynamic(node, folded, live)
    return folded


def _packs(module: GraphModule, node: Node) -> bool:
    if node.op == "call_module":
        return isinstance(referent(module, node), PackedWeight)
    return is_prepack(node)


def argument(node: Node, *names: str) -> object:
    """Return the argument of a q or dq node with one of these names; None if there is none."""
    target = node.target
    if isinstance(target, OpOverload):
        known = arguments(target)
        for name in names:
            if name in known:
                return argument_value(node, name)
    return None


def qparams(node: Node) -> tuple[object, ...]:
    """Return scale, zero point, axis, range and dtype of a q or dq node; None where absent."""
    return tuple(argument(node, *names) for names in _QPARAMS)


def quantized_type(node: Node) -> str:
    """Return ``u8``, or with the range if it is not the dtype's full range: ``u8[0,127]``."""
    return range_name(
        argument(node, "dtype"), argument(node, "quant_min"), argument(node, "quant_max")
    )


def scheme_of(node: Node) -> str:
    """Return ``per-tensor``, ``per-channel`` or ``groups(32)`` for a q or dq node."""
    group = argument(node, "group_size")
    if group is not None:
        return f"groups({group})"
    return "per-channel" if argument(node, "axis") is not None else "per-tensor"


def written_qparams(node: Node) -> str:
    """Return ``scale 0.0123, zero point 128`` for a quantize with numbers for both, else ""."""
    scale, zero_point, *_ = qparams(node)
    if not isinstance(scale, float):
        return ""
    return f"scale {scale:.3g}, zero point {zero_point}"


def observed_type(module: GraphModule, node: Node) -> str:
    """Return what an observer does, ``observe u8[0,255]``; for a foreign observer its class."""
    observer = referent(module, node)
    if not isinstance(observer, (Observer, PlaceholderObserver)):
        return f"observe {type(observer).__name__}"
    spec = observer.spec
    if isinstance(spec, CastSpec):
        return f"{_verb(observer)} {spec}"
    text = f"{_verb(observer)} {spec.dtype_name}[{spec.quant_min},{spec.quant_max}]"
    if spec.dynamic:
        return f"{text} dynamic"
    if spec.group is not None:
        return f"{text} groups({spec.group})"
    return text if spec.axis is None else f"{text} per-channel"


def _verb(observer: Observer | PlaceholderObserver) -> str:
    if isinstance(observer, LearnedFakeQuantize):
        return "learn"
    return "fake-quantize" if isinstance(observer, SavedFlags) else "observe"


def _describe_stored(target: str, value: object) -> Constant:
    if isinstance(value, Tensor):
        return Constant(target, dtype_name(value.dtype), shape_name(value.shape))
    return Constant(target, type(value).__name__, "")


def _fold_step(module: GraphModule, node: Node, folded: Folded) -> None:
    """Fold ``node`` if it continues a constant, or is the dq of an activation."""
    tensor = node.args[0] if node.args else None
    if not isinstance(tensor, Node) or not _is_complete(node):
        return
    of_constants = all(n.op == "get_attr" for n in node.all_input_nodes if n is not tensor)
    constant = folded.constants.get(tensor)
    if constant is not None:
        if of_constants:
            folded.constants[node] = _continue_constant(module, node, constant)
    elif dequantizes(node) and tensor not in folded.dequantizes:
        paired = quantizes(tensor)
        same = not paired or qparams(tensor) == qparams(node)
        if of_constants or (paired and same):
            folded.dequantizes[node] = same


def _is_complete(node: Node) -> bool:
    """Whether every qparam is given; an incomplete call is drawn as an operator."""
    if is_observer(node):
        return True
    symmetric = argument(node, *_ZERO_POINT) is None
    optional = dequantizes(node) and argument(node, "axis") is not None
    given = argument(node, *_SCALE) is not None and argument(node, "dtype") is not None
    return given and (optional or not symmetric)


def _continue_constant(module: GraphModule, node: Node, constant: Constant) -> Constant:
    """Return ``constant`` as it leaves ``node``, a node that it passes through."""
    if is_observer(node):
        return _with_step(constant, observed_type(module, node))
    scheme = scheme_of(node)
    if argument(node, *_ZERO_POINT) is None:
        scheme = f"{scheme} symmetric"
    if quantizes(node):
        return _with_step(constant, f"q {quantized_type(node)} {scheme}")
    if constant.scheme or constant.steps:
        return _with_step(constant, "dq")
    return replace(constant, scheme=scheme)


def _with_step(constant: Constant, step: str) -> Constant:
    return replace(constant, steps=(*constant.steps, step))


def _fold_dynamic(node: Node, folded: Folded, live: set[Node]) -> None:
    """Fold ``choose_qparams`` if only ``node`` and its dq read it, and in the usual way."""
    scale, zero_point = argument(node, *_SCALE), argument(node, *_ZERO_POINT)
    if not (isinstance(scale, Node) and isinstance(zero_point, Node)):
        return
    chosen = scale.args[0] if scale.args else None
    if not (isinstance(chosen, Node) and finds_range(chosen)):
        return
    readers = [n for item in (scale, zero_point) for n in item.users if n in live]
    as_intended = (
        scale.args == (chosen, 0)
        and zero_point.args == (chosen, 1)
        and chosen.all_input_nodes == [node.args[0]]
        and all(n in (scale, zero_point) for n in chosen.users if n in live)
        and all(n is node or folded.dequantizes.get(n, False) for n in readers)
    )
    if as_intended:
        folded.dynamic.add(node)
        folded.hidden.update((chosen, scale, zero_point))
