"""The layers whose rounded weights can be repaired, with the data for each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from quantfx.passes.convert.repair.input_sources import InputSource
from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.graphs import referent
from quantfx.passes.graph.slots import read_slot
from quantfx.passes.observe.statistics.patches import CONVOLUTIONS, LINEAR
from quantfx.passes.observe.statistics.recorders import LEAST_SAMPLES
from quantfx.passes.observers.fixed import SettledObserver
from quantfx.passes.observers.observer import Observer
from quantfx.passes.observers.statistics.layer_inputs import LayerInputs
from quantfx.passes.quant.annotation import Annotation, annotated
from quantfx.passes.quant.qparams import QParams
from quantfx.passes.quant.spec import QuantSpec


@dataclass(frozen=True)
class RepairableLayer:
    """A convolution or linear with a stored weight that will be rounded.

    Attributes:
        node: The call.
        annotation: The annotation of the layer.
        at: The node that observes the weight.
        weight: The stored weight, float32, ``(out, in_per_group, *kernel)``.
        original: The weight before rounding; the same if it was not rounded yet.
        qparams: Qparams of the weight, with a scale for each output channel, or for each group of
            its inputs.
        inputs: Moments of the inputs that the weight is multiplied with.
    """

    node: Node
    annotation: Annotation
    at: Node
    weight: Tensor
    original: Tensor
    qparams: QParams
    inputs: LayerInputs

    @property
    def steps(self) -> Tensor:
        """The original weight in steps of its scale."""
        return self.original / self.scale

    def values(self, integers: Tensor) -> Tensor:
        """Return the values that integers represent, float32."""
        return integers.float() * self.scale

    @property
    def nearest(self) -> Tensor:
        """The nearest integers of the stored weight, float32."""
        spec = self.qparams.spec
        steps = self.weight / self.scale
        return steps.round().clamp(spec.quant_min, spec.quant_max)

    @property
    def scale(self) -> Tensor:
        """The scale of every weight: with groups in the weight's shape, else ``(out, 1, ...)``."""
        scale, group = self.qparams.scale, self.qparams.spec.group
        if group is not None:
            return scale.repeat_interleave(group, 1)
        return scale.reshape(-1, *[1] * (self.weight.dim() - 1))


def repairable_layers(editor: Editor, source: InputSource, by: str) -> Iterator[RepairableLayer]:
    """Yield the layers of the editor's graph whose inputs are known.

    Skips layers whose weight is also read by another call, is not float32, or has a single scale,
    zero points or a cast.

    Args:
        editor: Editor of a graph with observers.
        source: Source of the inputs.
        by: Name of the pass that repairs.
    """
    for node, annotation in list(annotated(editor.graph)):
        if node.target not in (LINEAR, *CONVOLUTIONS):
            continue
        layer = _layer(editor, node, annotation, source)
        if layer is not None and not source.judges(layer.inputs):
            message = f"{by}: statistics of fewer than {LEAST_SAMPLES} samples cannot judge it"
            editor.remark("missed", node.name, message, str(node.target))
        elif layer is not None:
            yield layer


def _layer(
    editor: Editor, node: Node, annotation: Annotation, source: InputSource
) -> RepairableLayer | None:
    at = read_slot(node, "weight")
    observer = referent(editor.module, at) if at.op == "call_module" else None
    stored = at.all_input_nodes[0] if at.all_input_nodes else None
    weight = editor.stored(stored)
    if not isinstance(observer, Observer) or weight is None or list(at.users) != [node]:
        return None
    calls = [each for each in editor.graph.find_nodes(op="call_module") if each.target == at.target]
    spec = observer.spec
    plain = spec.axis == 0 and spec.symmetric
    if calls != [at] or weight.dtype != torch.float32 or not plain:
        return None
    with torch.no_grad():
        qparams = observer.qparams_of(weight)
    if not _is_plain(qparams):
        return None
    weight = weight.detach()
    inputs = source.of(node, weight.shape)
    if inputs is None:
        return None
    if not isinstance(observer, SettledObserver):  # scales are searched only once
        observer = SettledObserver(qparams, weight, observer.label)
        setattr(editor.module, str(at.target), observer)
    original = observer.original
    return RepairableLayer(node, annotation, at, weight, original, qparams, inputs)


def _is_plain(qparams: QParams) -> bool:
    spec: QuantSpec = qparams.spec
    return spec.dtype == torch.int8 and not bool(qparams.zero_point.any())
