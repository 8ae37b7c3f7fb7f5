"""Take over the weight scales that torch.ao's quantization-aware training has found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from quantfx.passes.errors import CalibrationError
from quantfx.passes.graph.aliasing import overwritten
from quantfx.passes.graph.batch_norm import set_bias, statistics_of
from quantfx.passes.graph.constant_chain import constant_chain, constant_value
from quantfx.passes.graph.editor import Editor
from quantfx.passes.graph.graphs import all_graphs
from quantfx.passes.graph.remark import Remark
from quantfx.passes.observers.trained import set_trained_qparams
from quantfx.passes.pipeline.base import Context, Pass, PassResult
from quantfx.passes.quant.qparams import QParams, qparams_from_range
from quantfx.passes.quant.scale_floor import TORCH_AO_FLOOR
from quantfx.passes.quant.spec import QuantSpec
from quantfx.patterns.loader import load
from quantfx.patterns.match import Match
from quantfx.patterns.schema import argument_value, resolve_op

_FAKE_QUANTIZE = resolve_op("aten.fused_moving_avg_obs_fake_quant.default")
_FIXED = (
    resolve_op("aten.fake_quantize_per_tensor_affine.default"),
    resolve_op("aten.fake_quantize_per_tensor_affine.tensor_qparams"),
    resolve_op("aten.fake_quantize_per_channel_affine.default"),
)
_PATTERNS = load("qat_modules").group("adopt-fake-quantize")
DROPPED = "removed: calibration finds the range of the tensor that it rounded"
_ALIKE = 1e-4  # two ways to compute one scale may differ in the last bits


@dataclass(frozen=True)
class AdoptFakeQuantize(Pass):
    """``conv(x, fake_quantize(w)) -> conv(x, w)``, with the scales of training noted on w.

    And ``batch_norm(conv(x, fake_quantize(w * s)) / s + b) -> conv(x, w * s, b')``, as
    nniqat.ConvBn2d and similar modules compute in evaluation; s is the scale of the batch norm, and
    ``b' = (b - mean) * s + beta`` (Jacob et al. 2018, section 3.2). Fake quantizes of activations
    are removed: calibration finds their ranges, for the sites that kernels quantize.

    Attributes:
        scales: Whether weights keep the scales of training; otherwise new scales are found, for the
            range of integers in which the backend's kernels are exact.
    """

    scales: bool = True

    name = "adopt-fake-quantize"
    keeps_float = False  # weights are rounded later, not in the float graph

    def run(self, module: GraphModule, context: Context) -> PassResult:
        """Rewrite every fake quantize of a constant, then the layers scaled for a batch norm."""
        adopted = folded = dropped = 0
        remarks: list[Remark] = []
        for path, graph_module in all_graphs(module):
            editor = Editor(graph_module, self.name)
            found = graph_module.graph.find_nodes(op="call_function", target=_FAKE_QUANTIZE)
            written = set(overwritten(graph_module.graph))
            weights = set(_adopt(editor, found, written, self.scales))
            adopted += len(weights)
            # Fake quantizes of activations.
            gone: list[str] = []
            for target in (_FAKE_QUANTIZE, *_FIXED):
                for node in editor.graph.find_nodes(op="call_function", target=target):
                    source = argument_value(node, "self")
                    if constant_chain(source, ()) is None:
                        gone.append(node.name)
                        editor.replace(node, source)
            remarks += [Remark("applied", path, name, DROPPED) for name in gone]
            dropped += len(gone)
            for match in _PATTERNS.matcher().run(graph_module.graph) if weights else ():
                norm = match.nodes["bn"].name
                if match.roles["w"] in weights and _fold(editor, match):
                    remarks.append(Remark("applied", path, norm, f"into {match.anchor.name}"))
                    folded += 1
            if editor.edits:
                editor.drop_unused_attributes()
        stats = {"adopted": adopted, "folded": folded, "dropped": dropped}
        return PassResult(tuple(remarks), stats)


def _adopt(
    editor: Editor, found: Iterable[Node], written: set[Node], scales: bool
) -> Iterator[Node]:
    """Replace each fake quantize of a constant by that constant; yield it."""
    for node in list(found):
        source = argument_value(node, "self")
        chain = constant_chain(source, written) or []
        stored = next((each for each in chain if each.op == "get_attr"), None)
        if stored is None:
            continue
        qparams = _qparams(editor, node) if scales else None
        if source is not stored:
            value = constant_value(editor.module, source)
            stored = editor.constant(f"{stored.target}_scaled", value, like=stored, before=node)
        if qparams is not None:
            set_trained_qparams(stored, qparams)
        editor.replace_uses(node, stored)
        editor.erase_unused(node)
        yield stored


def _qparams(editor: Editor, node: Node) -> QParams:
    low, high = (editor.stored(argument_value(node, f"running_{end}")) for end in ("min", "max"))
    if low is None or high is None or not low.numel() or not bool((low <= high).all()):
        message = f"{node.name}: the weight's range is not known"
        fix = "run the model in training mode first"
        raise CalibrationError(message, rule="never-run", site=node.name, fix=fix)
    per_channel = argument_value(node, "per_row_fake_quant")
    spec = QuantSpec(
        torch.int8,
        argument_value(node, "quant_min"),
        argument_value(node, "quant_max"),
        symmetric=argument_value(node, "symmetric_quant"),
        axis=argument_value(node, "ch_axis") if per_channel else None,
        observer="min_max",
        eps=TORCH_AO_FLOOR,
    )
    return qparams_from_range(low.detach().clone(), high.detach().clone(), spec)


def _fold(editor: Editor, match: Match) -> bool:
    """Rewrite a scaled layer, unless its scale is not the scale of its batch norm."""
    layer, norm, weight = match.anchor, match.nodes["bn"], match.roles["w"]
    scale = _flat(editor, match.roles["s"])
    statistics = statistics_of(editor, norm)
    if scale is None or not isinstance(weight, Node) or scale.shape != statistics.scale.shape:
        return False
    if not torch.allclose(scale.double(), statistics.scale, rtol=_ALIKE, atol=0):
        return False
    bias = _flat(editor, match.roles.get("b"))
    value = statistics.fold_bias(bias).to(scale.dtype)
    set_bias(editor, layer, None, value, weight)
    layer.meta["val"] = norm.meta.get("val", layer.meta.get("val"))
    editor.replace_uses(norm, layer)
    editor.erase_unused(norm)
    return True


def _flat(editor: Editor, node: object) -> Tensor | None:
    """Return a constant with one value per channel; None if ``node`` is computed or missing."""
    if not isinstance(node, Node) or constant_chain(node, ()) is None:
        return None
    return constant_value(editor.module, node).detach().flatten()
