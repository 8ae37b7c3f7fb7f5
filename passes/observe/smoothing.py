"""Move the size of activation channels into the weights of the linears that read them."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, cast

from torch import Tensor
from torch.fx import GraphModule, Node

from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.graphs import Site, constant, module_calls, referent
from quantfx.passes.graph.remark import Remark
from quantfx.passes.graph.slots import read_slot
from quantfx.passes.observers.channel import ChannelObserver, RangeSearch
from quantfx.passes.observers.derived import DerivedObserver
from quantfx.passes.observers.make_observer import make_observer
from quantfx.passes.observers.observer import Observer
from quantfx.passes.pipeline.base import Context, Pass, PassResult
from quantfx.passes.quant.annotation import DIVISOR_KEY
from quantfx.passes.quant.spec import QuantSpec
from quantfx.patterns.schema import resolve_op

MUL = resolve_op("aten.mul.Tensor")


@dataclass(frozen=True)
class SmoothableTensor:
    """A tensor that linears alone read.

    Attributes:
        observer: Knows its channels.
        weights: Of the linears, each once, ``(out, channels)``.
        specs: Of the weights.
        sites: The linears.
    """

    observer: ChannelObserver
    weights: tuple[Tensor, ...]
    specs: tuple[QuantSpec, ...]
    sites: tuple[Site, ...]


@dataclass(frozen=True)
class Smoothed:
    """How the channels of a tensor are evened out.

    Attributes:
        divisor: Of the channels, float64, ``(channels,)``.
        search: How the range of the quotient is found.
    """

    divisor: Tensor
    search: RangeSearch


@dataclass(frozen=True)
class Smoothing(Pass):
    """``linear(x, w) -> linear(x * (1 / s), w * s)``, s per channel of x; the same function.

    Linears that read one tensor share s, and w runs over all of them. A subclass says what s is.
    The product is a node of its own: what computes x has other readers in general (the residual
    connection behind a layer norm). Inductor computes it in the loop that quantizes x.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"observed"})

    @abstractmethod
    def choose(self, tensor: SmoothableTensor, context: Context) -> Smoothed | str:
        """Return how a tensor is smoothed, or why it is not."""

    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Smooth every tensor that observe-channels had recorded by channel."""
        editor = Editor(module, self.name)
        remarks: list[Remark] = []
        smoothed = 0
        for node, observer in list(module_calls(module, ChannelObserver)):
            found: Smoothed | str | None = _obstacle(module, node)
            if found is None:
                found = self.choose(_tensor(module, node, observer), context)
            if isinstance(found, Smoothed):
                product = _smooth(editor, node, observer, found)
                remarks.append(Remark("applied", "", product.name, f"for {_names(node)}"))
                smoothed += 1
            else:
                message = f"not smoothed for {_names(node)}: {found}"
                remarks.append(Remark("missed", "", node.name, message))
        if smoothed:
            editor.drop_unused_attributes()
        return PassResult(tuple(remarks), {"smoothed": smoothed})


def _tensor(module: GraphModule, node: Node, observer: ChannelObserver) -> SmoothableTensor:
    weights = {_weight_observer(linear): _weight(module, linear) for linear in node.users}
    specs = [cast(Observer, referent(module, at)).spec for at in weights]
    sites = tuple(Site("", linear.name) for linear in node.users)
    return SmoothableTensor(observer, tuple(weights.values()), tuple(specs), sites)


def _smooth(editor: Editor, node: Node, observer: ChannelObserver, how: Smoothed) -> Node:
    weights = {_weight_observer(linear): _weight(editor.module, linear) for linear in node.users}
    for at, weight in weights.items():
        _replace_weight(editor, at, weight * how.divisor.to(weight))
    for linear in node.users:
        linear.meta[DIVISOR_KEY] = how.divisor
    producer = node.all_input_nodes[0]
    inverse = (1 / how.divisor).to(next(iter(weights.values())))
    stored = editor.constant(f"{producer.name}_inverse_scale", inverse, like=producer, before=node)
    product = editor.call(
        MUL, (producer, stored), like=producer, before=node, val=producer.meta.get("val")
    )
    node.replace_input_with(producer, product)
    # The observer may be known to the module that was calibrated: another one takes its place.
    divided = observer.divide_by(1 / inverse.float(), how.search)
    setattr(editor.module, str(node.target), divided)
    return product


def _names(observer: Node) -> str:
    return ", ".join(linear.name for linear in observer.users)


def _obstacle(module: GraphModule, node: Node) -> str | None:
    """Return why the tensor behind the observer ``node`` cannot be rescaled, if so."""
    weights = [_weight_observer(linear) for linear in node.users]
    if any(not set(each.users) <= set(node.users) for each in weights):
        return "another operator reads the weight as well"
    calls = [str(each.target) for each in module.graph.find_nodes(op="call_module")]
    if any(calls.count(str(each.target)) > 1 for each in (node, *weights)):
        return "its qparams are shared"
    observers = [referent(module, each) for each in (node, *weights)]
    for other in module.children():
        if isinstance(other, DerivedObserver) and any(s in observers for s in other.sources):
            return "other qparams derive from its own"
    return None


def _weight_observer(linear: Node) -> Node:
    return read_slot(linear, "weight")


def _weight(module: GraphModule, linear: Node) -> Tensor:
    weight = _weight_observer(linear).all_input_nodes[0]
    return cast(Tensor, constant(module, weight)).detach()


def _replace_weight(editor: Editor, at: Node, weight: Tensor) -> None:
    """Store ``weight`` in the place of what the observer ``at`` reads, and observe it anew."""
    before = cast(Observer, referent(editor.module, at))
    stored = at.all_input_nodes[0]
    changed = editor.changed_constant(stored, weight, before=at)
    at.replace_input_with(stored, changed)
    fresh = cast(Observer, make_observer(before.spec, before.label))
    fresh(weight)
    fresh.freeze()
    setattr(editor.module, str(at.target), fresh)
