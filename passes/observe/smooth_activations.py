"""Move the size of activation channels into the weights of the linears that read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.graphs import constant, module_calls, referent
from quantfx.passes.graph.remark import Remark
from quantfx.passes.graph.slots import read_slot
from quantfx.passes.observe.smoothing_scale import require_rows, require_share, smoothing_scale
from quantfx.passes.observers.channel import ChannelObserver
from quantfx.passes.observers.derived import DerivedObserver
from quantfx.passes.observers.make_observer import make_observer
from quantfx.passes.observers.observer import Observer
from quantfx.passes.pipeline.base import Context, Pass, PassResult
from quantfx.passes.quant.annotation import DIVISOR_KEY
from quantfx.patterns.schema import resolve_op

MUL = resolve_op("aten.mul.Tensor")


@dataclass(frozen=True)
class SmoothActivations(Pass):
    """``linear(x, w) -> linear(x * (1 / s), w * s)``, s per channel of x; the same function.

    ``s = size(x)^alpha / rms(w)^(1 - alpha)``, divided by its geometric mean. This is SmoothQuant
    (Xiao et al. 2023, equation 4) with other sizes in place of maxima: the fourth root of mean
    fourth powers for activations, the root mean square for weights. A single outlier then does not
    decide for its channel, but counts for more than in a mean square: MiniLM, repaired, gains 0.8
    dB by that at alpha 0.7. Linears that read one tensor share s, and w runs over all of them.

    The product is a separate node: x usually has other readers (the residual connection after a
    layer norm). Inductor computes it in the loop that quantizes x.

    Attributes:
        alpha: 0 evens out the weights, 1 the activations.
        rows: Minimum number of values per channel that calibration must have seen; with fewer, s
            follows chance. The classifier of EfficientNet-Lite0 sees one row per image: 64 images
            cost 4 dB, and more images gain nothing.
    """

    alpha: float = 0.7
    rows: int = 1024

    def __post_init__(self) -> None:
        require_share(self.alpha)
        require_rows(self.rows)

    name = "smooth-activations"
    requires = frozenset({"observed"})

    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Smooth every tensor that was recorded by channel because of observe-channels."""
        editor = Editor(module, self.name)
        remarks: list[Remark] = []
        smoothed = 0
        for node, observer in list(module_calls(module, ChannelObserver)):
            reason = self._too_few(observer) or _obstacle(module, node)
            if reason is None:
                product = self._smooth(editor, node, observer)
                remarks.append(Remark("applied", "", product.name, f"for {_names(node)}"))
                smoothed += 1
            else:
                message = f"not smoothed for {_names(node)}: {reason}"
                remarks.append(Remark("missed", "", node.name, message))
        if smoothed:
            editor.drop_unused_attributes()
        return PassResult(tuple(remarks), {"smoothed": smoothed})

    def _too_few(self, observer: ChannelObserver) -> str | None:
        seen = int(observer.channels.rows)
        return f"{seen} values per channel, of {self.rows} needed" if seen < self.rows else None

    def _smooth(self, editor: Editor, node: Node, observer: ChannelObserver) -> Node:
        weights = {
            _weight_observer(linear): _weight(editor.module, linear) for linear in node.users
        }
        rms = torch.cat(list(weights.values())).double().square().mean(0).sqrt()
        scale = smoothing_scale(observer.channels.size(), rms, self.alpha)
        for at, weight in weights.items():
            _replace_weight(editor, at, weight * scale.to(weight))
        for linear in node.users:
            linear.meta[DIVISOR_KEY] = scale
        producer = node.all_input_nodes[0]
        inverse = (1 / scale).to(next(iter(weights.values())))
        stored = editor.constant(
            f"{producer.name}_inverse_scale", inverse, like=producer, before=node
        )
        product = editor.call(
            MUL, (producer, stored), like=producer, before=node, val=producer.meta.get("val")
        )
        node.replace_input_with(producer, product)
        # The calibrated module may hold the same observer, so a new observer replaces it.
        setattr(editor.module, str(node.target), observer.divide_by(1 / inverse.float()))
        return product


def _names(observer: Node) -> str:
    return ", ".join(linear.name for linear in observer.users)


def _obstacle(module: GraphModule, node: Node) -> str | None:
    """Return why the tensor of the observer ``node`` cannot be rescaled; None if it can."""
    weights = [_weight_observer(linear) for linear in node.users]
    if any(not set(each.users) <= set(node.users) for each in weights):
        return "another operator also reads the weight"
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
    """Store ``weight`` in place of the constant that the observer ``at`` reads, and observe it."""
    before = cast(Observer, referent(editor.module, at))
    stored = at.all_input_nodes[0]
    changed = editor.changed_constant(stored, weight, before=at)
    at.replace_input_with(stored, changed)
    fresh = cast(Observer, make_observer(before.spec, before.label))
    fresh(weight)
    fresh.freeze()
    setattr(editor.module, str(at.target), fresh)
