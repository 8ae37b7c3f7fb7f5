"""Turn observers of other libraries into quantfx's, which its passes can convert."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from quantfx.compat.terms.errors import foreign_code
from quantfx.compat.terms.foreign_spec import ChosenModule
from quantfx.compat.terms.quant_spec import quant_spec
from quantfx.passes.errors import ObserverError
from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.graphs import all_graphs, constant, module_calls
from quantfx.passes.graph.slots import slots_of
from quantfx.passes.observers.observer import Observer
from quantfx.passes.observers.placeholder import PlaceholderObserver
from quantfx.passes.pipeline.base import Context, Pass, PassResult
from quantfx.passes.quant.annotation import Annotation, annotated, annotation_of, set_annotation
from quantfx.passes.quant.qparams import QParams
from quantfx.passes.quant.spec import CastSpec, Concrete, QuantSpec, Spec


class AdoptObservers(Pass):
    """Replaces each module with an observer's attributes by an observer of quantfx.

    1. ``convert(model, node)``: it converts itself, now.
    2. ``is_dynamic``: it becomes a placeholder for a range found in each call.
    3. ``dtype`` float16: it becomes a placeholder for a cast.
    4. Another dtype to quantize to: it becomes an observer that asks the module for its qparams.
    5. Any other dtype (a bias that stays float): it is removed.
    """

    name = "adopt-observers"
    provides = frozenset({"observed"})
    keeps_float = False

    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Adopt observers in every graph; a module under several names becomes one observer."""
        adopted = _Adopted()
        for _, graph_module in all_graphs(module):
            editor = Editor(graph_module, self.name)
            for node, found in list(module_calls(graph_module, nn.Module)):
                if _observes(found):
                    adopted.take(editor, node, found)
            used = {node.target for node in graph_module.graph.find_nodes(op="call_module")}
            for name, child in list(graph_module.named_children()):
                if name not in used and _observes(child):
                    delattr(graph_module, name)
            for node, annotation in annotated(graph_module.graph):
                inputs = [(slot, _resolve_spec(spec, adopted)) for slot, spec in annotation.inputs]
                output = (
                    None if annotation.output is None else _resolve_spec(annotation.output, adopted)
                )
                set_annotation(node, replace(annotation, inputs=tuple(inputs), output=output))
        return PassResult(stats={"adopted": len(adopted.ours)})


@dataclass
class _Adopted:
    ours: dict[nn.Module, Observer | PlaceholderObserver] = field(
        default_factory=dict[nn.Module, "Observer | PlaceholderObserver"]
    )

    def take(self, editor: Editor, node: Node, module: Any) -> None:
        if callable(getattr(module, "convert", None)):
            with foreign_code():
                module.convert(editor.module, node)
            return
        spec = _spec_of(module, node)
        if spec is None:
            editor.replace(node, node.all_input_nodes[0])
            return
        _see_weight(module, editor.module, node.all_input_nodes[0])
        if module not in self.ours:
            self.ours[module] = _make_observer(module, spec, node.name)
        name = str(node.target)
        if getattr(editor.module, name) is not self.ours[module]:
            delattr(editor.module, name)
            editor.module.add_module(name, self.ours[module])
        _ask_for(node, spec)


def _observes(module: nn.Module) -> bool:
    """Whether ``module`` is an observer or fake-quantize of another library."""
    if isinstance(module, (Observer, PlaceholderObserver)):
        return False
    calculates = callable(getattr(module, "calculate_qparams", None))
    return calculates and (hasattr(module, "dtype") or hasattr(module, "convert"))


def _see_weight(observer: Any, owner: GraphModule, producer: Node) -> None:
    """Show a weight to an observer that never ran: this needs no calibration data."""
    seen: object = getattr(observer, "min_val", None)
    if producer.op != "get_attr" or not isinstance(seen, Tensor):
        return
    if seen.numel() == 0 or bool(torch.isinf(seen).all()):
        with torch.no_grad(), foreign_code():
            observer(constant(owner, producer))


def _spec_of(module: Any, node: Node) -> Concrete | None:
    if module.dtype == torch.float16:
        return CastSpec(torch.float16)
    found = quant_spec(module)
    if found is None and getattr(module, "is_dynamic", False):
        message = (
            f"{node.name} ({type(module).__name__}) is to find its range in each call, "
            f"but {module.dtype} is not a dtype to quantize to"
        )
        raise ObserverError(message, rule="spec-dtype", site=node.name, fix="use int8 or uint8")
    return found


def _ask_for(observer: Node, spec: Concrete) -> None:
    """Annotate around an observer that another library inserted."""
    producer, users = observer.all_input_nodes[0], list(observer.users)
    if any(annotation_of(node) is not None for node in (producer, *users)):
        return
    if producer.op != "call_module":
        set_annotation(producer, replace(_unknown(producer), output=spec))
        return
    for user in users:  # an observer behind another
        inputs = tuple((slot, spec) for slot, feeds in slots_of(user) if feeds is observer)
        set_annotation(user, replace(_unknown(user), inputs=inputs))


def _unknown(node: Node) -> Annotation:
    return Annotation("", match=node.name, kind=str(node.target), kernel="", reach="fused")


def _make_observer(module: nn.Module, spec: Concrete, label: str) -> Observer | PlaceholderObserver:
    if isinstance(spec, CastSpec) or spec.dynamic:
        return PlaceholderObserver(spec, label)
    return ForeignObserver(module, spec, label)


def _resolve_spec(spec: Spec, adopted: _Adopted) -> Spec:
    if not isinstance(spec, QuantSpec) or not isinstance(spec.observer, ChosenModule):
        return spec
    ours = adopted.ours.get(spec.observer.module)
    return ours.spec if ours is not None else replace(spec, observer="min_max")


class ForeignObserver(Observer):
    """Takes its qparams from another module.

    Args:
        observer: Has ``calculate_qparams() -> (scale, zero_point)``.
        spec: The spec that the observer's attributes describe.
        label: Name of the tensor, used in errors.
    """

    def __init__(self, observer: nn.Module, spec: QuantSpec, label: str) -> None:
        super().__init__(spec, label)
        self.observer: Any = observer

    def observe(self, x: Tensor) -> None:
        """Show ``x`` to the other module."""
        self.observer(x)

    @property
    def observed(self) -> bool:
        """True: the other module decides what it does without calibration."""
        return True

    def calculate_qparams(self) -> QParams:
        """Return the qparams of the other module, in the shape that passes expect."""
        with foreign_code():
            scale, zero_point = self.observer.calculate_qparams()
        shape = () if self.spec.axis is None else (-1,)
        return QParams(scale.detach().reshape(shape), zero_point.detach().reshape(shape), self.spec)
