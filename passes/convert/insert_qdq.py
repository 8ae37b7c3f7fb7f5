"""Replace every observer by a quantize and one dequantize per reader."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from quantfx.passes.convert.normal_products import raise_small_scales
from quantfx.passes.convert.refuse_empty import refuse_empty
from quantfx.passes.convert.scale_remarks import scale_reason
from quantfx.passes.errors import CalibrationError, PipelineError, SpecError
from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.graphs import all_graphs, module_calls
from quantfx.passes.graph.remark import AnyRemark, Remark, ScaleRemark
from quantfx.passes.observers.observer import Observer
from quantfx.passes.observers.placeholder import PlaceholderObserver
from quantfx.passes.pipeline.base import Context, Pass, PassResult
from quantfx.passes.quant.annotation import GROUP_KEY, annotated, annotation_of, set_annotation
from quantfx.passes.quant.qdq import (
    CAST,
    DEQUANTIZE_DYNAMIC,
    DEQUANTIZE_GROUPS,
    DEQUANTIZE_PER_CHANNEL,
    DEQUANTIZE_PER_TENSOR,
    QUANTIZE_DYNAMIC,
    QUANTIZE_GROUPS,
    QUANTIZE_PER_CHANNEL,
    QUANTIZE_PER_TENSOR,
    choose_qparams_op,
    finds_range,
)
from quantfx.passes.quant.qparams import QParams
from quantfx.passes.quant.spec import CastSpec, QuantSpec
from quantfx.patterns.errors import unknown_name

_OBSERVERS = (Observer, PlaceholderObserver)


@dataclass(frozen=True)
class InsertQDQ(Pass):
    """``f(observe(x)) -> f(dq(q(x)))`` with the qparams that the observer found.

    Attributes:
        uncalibrated: What to do at sites that calibration never reached: ``error`` names every such
            site, ``float`` leaves it unquantized with a remark.
    """

    uncalibrated: Literal["error", "float"] = "error"

    def __post_init__(self) -> None:
        if self.uncalibrated not in ("error", "float"):
            raise unknown_name(PipelineError, "uncalibrated", self.uncalibrated, ("error", "float"))

    name = "insert-qdq"
    requires = frozenset({"observed"})
    provides = frozenset({"qdq"})
    breaks = frozenset({"observed"})
    keeps_float = False

    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Compute qparams once per observer, then rewrite every graph."""
        places = _observers(module)
        missing = [place for place in places if not _is_ready(place[2])]
        if missing and self.uncalibrated == "error":
            raise _never_run(missing)
        remarks: list[AnyRemark] = []
        for path, node, _ in missing:
            remarks += _leave_float(path, node)
        editors = {path: Editor(each, self.name) for path, each in all_graphs(module)}
        qparams = _QParams()
        for path, node, observer in places:
            if isinstance(observer, Observer) and observer.observed and _is_wanted(node):
                stored = editors[path].stored(node.all_input_nodes[0])
                _require_float32(node.all_input_nodes[0], stored)
                qparams.find(observer, node, stored)
        remarks += qparams.remarks()
        quantized = 0
        for path, node, observer in places:
            if _is_ready(observer) and _is_wanted(node):
                if isinstance(observer, Observer):
                    _quantize(editors[path], node, qparams.of(observer))
                else:
                    convert_uncalibrated(editors[path], node, observer.spec)
                quantized += 1
            else:
                editors[path].replace(node, node.all_input_nodes[0])
        for path, graph_module in all_graphs(module):
            _drop_observers(graph_module, editors[path])
            if any(finds_range(node) for node in graph_module.graph.nodes):
                refuse_empty(module)
        return PassResult(tuple(remarks), {"quantized": quantized})


def _leave_float(path: str, observer: Node) -> Iterator[Remark]:
    """Withdraw every match that reads the observed tensor; yield the reason for its anchor."""
    matches = {a.match for user in observer.users if (a := annotation_of(user)) is not None}
    producer = annotation_of(observer.all_input_nodes[0])
    if producer is not None and producer.output is not None:
        matches.add(producer.match)
    for node, annotation in annotated(observer.graph):
        if annotation.match in matches:
            set_annotation(node, None)
            if node.name == annotation.match:
                message = "calibration never ran it: left float"
                yield Remark("missed", path, node.name, message, str(node.target))


def _is_wanted(observer: Node) -> bool:
    """Whether some match still reads the observed tensor, or must yield it quantized."""
    producer = annotation_of(observer.all_input_nodes[0])
    yields = producer is not None and producer.output is not None
    return yields or any(annotation_of(user) is not None for user in observer.users)


@dataclass
class _QParams:
    """Qparams by observer; the search for a range is the expensive part and runs once."""

    found: dict[int, QParams] = field(default_factory=dict[int, QParams])
    at: dict[Node, Observer] = field(default_factory=dict[Node, Observer])
    weights: dict[Node, Tensor] = field(default_factory=dict[Node, Tensor])

    def find(self, observer: Observer, node: Node, stored: Tensor | None) -> None:
        self.at[node] = observer
        if stored is not None:
            self.weights[node] = stored
        if id(observer) not in self.found:
            with torch.no_grad():
                self.found[id(observer)] = observer.qparams_of(stored)

    def of(self, observer: Observer) -> QParams:
        return self.found[id(observer)]

    def remarks(self) -> Iterator[ScaleRemark]:
        """Fit weight scales to input scales; yield a remark for each scale that fits no values."""
        found = dict(self.found)
        for node in self.weights:
            observer = self.at[node]
            self.found[id(observer)] = raise_small_scales(node, self.of(observer), self._at)
        for observer, node in {id(each): (each, at) for at, each in self.at.items()}.values():
            stored = self.weights.get(node)
            reason = scale_reason(observer, stored, found[id(observer)], self.of(observer))
            if reason is not None:
                yield ScaleRemark(observer.label or node.name, reason)

    def _at(self, node: Node) -> QParams | None:
        return self.of(self.at[node]) if node in self.at else None


def _require_float32(producer: Node, stored: Tensor | None) -> None:
    """Refuse double precision: a model may have been captured in it, or cast to it for training."""
    values = stored, producer.meta.get("val")
    if any(isinstance(each, Tensor) and each.dtype == torch.float64 for each in values):
        message = f"{producer.name} is float64, and the quantize operators take float32"
        fix = "capture and prepare the model in float32, and give it trained.float().state_dict()"
        raise SpecError(message, rule="float64", site=producer.name, fix=fix)


def _is_ready(observer: Observer | PlaceholderObserver) -> bool:
    return not isinstance(observer, Observer) or observer.observed


def _observers(module: GraphModule) -> list[tuple[str, Node, Observer | PlaceholderObserver]]:
    return [
        (path, node, observer)
        for path, graph_module in all_graphs(module)
        for node, observer in module_calls(graph_module, nn.Module)
        if isinstance(observer, _OBSERVERS)
    ]


def _never_run(
    missing: list[tuple[str, Node, Observer | PlaceholderObserver]],
) -> CalibrationError:
    labels = dict.fromkeys(
        getattr(observer, "label", node.name) + (f" in branch {path}" if path else "")
        for path, node, observer in missing
    )
    shown = list(labels)[:5]
    more = f" and {len(labels) - 5} more" if len(labels) > 5 else ""
    return CalibrationError(
        f"{len(labels)} site(s) were never calibrated: {', '.join(shown)}{more}.",
        rule="never-run",
        site=shown[0],
        fix=(
            "run calibration data that reaches them, or leave them float with "
            "insert-qdq{uncalibrated='float'}"
        ),
    )


def _quantize(editor: Editor, node: Node, qparams: QParams) -> None:
    producer = node.all_input_nodes[0]
    spec, by_groups = qparams.spec, qparams.spec.group is not None
    val = producer.meta.get("val")
    integers = val.to(spec.dtype) if isinstance(val, torch.Tensor) else None
    if spec.axis is None:
        quantize, dequantize = QUANTIZE_PER_TENSOR, DEQUANTIZE_PER_TENSOR
        given: tuple[Any, ...] = (float(qparams.scale), int(qparams.zero_point))
    else:
        quantize, dequantize = QUANTIZE_PER_CHANNEL, DEQUANTIZE_PER_CHANNEL
        base = str(producer.target) if producer.op == "get_attr" else producer.name
        zeros = qparams.zero_point
        if by_groups:  # there are many, kept as small as the values
            quantize, dequantize, zeros = QUANTIZE_GROUPS, DEQUANTIZE_GROUPS, zeros.to(spec.dtype)
        given = (
            editor.constant(f"{base}_scale", qparams.scale, like=producer, before=node),
            editor.constant(f"{base}_zero_point", zeros, like=producer, before=node),
        )
        given = given if by_groups else (*given, spec.axis)
    given = (*given, spec.quant_min, spec.quant_max, spec.dtype)
    given = (*given, spec.group) if by_groups else given
    q = editor.call(quantize, (producer, *given), like=producer, before=node, val=integers)
    q.meta[GROUP_KEY] = str(node.target)  # one observer, one sharing group
    dtype = val.dtype if isinstance(val, torch.Tensor) else torch.float32
    # A dequantize yields float32 unless told otherwise; that of groups is always told.
    kwargs = {} if by_groups or dtype == torch.float32 else {"out_dtype": dtype}
    read = (*given, dtype) if by_groups else given
    for user in list(node.users):
        dq = editor.call(dequantize, (q, *read), kwargs=kwargs, like=producer, before=user, val=val)
        user.replace_input_with(node, dq)
    editor.erase(node)


def _drop_observers(module: GraphModule, editor: Editor) -> None:
    used = {str(node.target) for node in module.graph.find_nodes(op="call_module")}
    for name, child in list(module.named_children()):
        if isinstance(child, _OBSERVERS) and name not in used:
            delattr(module, name)
            editor.edits += 1


def convert_uncalibrated(editor: Editor, node: Node, spec: QuantSpec | CastSpec) -> None:
    """Replace the placeholder observer ``node`` by the operators that its spec asks for.

    ``f(observe(x)), g(observe(x))`` becomes, for a dynamic spec, ``f(d), g(d)`` with
    ``d = dq(q(x, *choose(x)), *choose(x))``; for a cast each reader gets its own cast back.
    """
    if isinstance(spec, CastSpec):
        _cast(editor, node, spec)
    else:
        _quantize_dynamically(editor, node, spec)


def _quantize_dynamically(editor: Editor, node: Node, spec: QuantSpec) -> None:
    producer = node.all_input_nodes[0]
    choose = choose_qparams_op(spec.symmetric)
    whole = (spec.quant_min, spec.quant_max)
    chosen = editor.call(
        choose, (producer, *whole, spec.eps, spec.dtype), like=producer, before=node
    )
    scale, zero_point = (
        editor.call(operator.getitem, (chosen, index), like=producer, before=node)
        for index in (0, 1)
    )
    val = producer.meta.get("val")
    given = (scale, zero_point, *whole, spec.dtype)
    integers = val.to(spec.dtype) if isinstance(val, Tensor) else None
    q = editor.call(QUANTIZE_DYNAMIC, (producer, *given), like=producer, before=node, val=integers)
    q.meta[GROUP_KEY] = str(node.target)
    # One dq for all readers: they share one range, and Inductor expects that form.
    dq = editor.call(DEQUANTIZE_DYNAMIC, (q, *given), like=producer, before=node, val=val)
    editor.replace(node, dq)


def _cast(editor: Editor, node: Node, spec: CastSpec) -> None:
    producer = node.all_input_nodes[0]
    val: Any = producer.meta.get("val")
    known = isinstance(val, Tensor)
    narrow = editor.call(
        CAST,
        (producer, spec.dtype),
        like=producer,
        before=node,
        val=val.to(spec.dtype) if known else None,
    )
    dtype = val.dtype if known else torch.float32
    for user in list(node.users):
        wide = editor.call(CAST, (narrow, dtype), like=producer, before=user, val=val)
        user.replace_input_with(node, wide)
    editor.erase(node)
