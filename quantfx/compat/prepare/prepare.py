"""From an exported model to one with observers, as a quantizer wants them."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from quantfx.compat.exported.export_utils import forbid_train_eval
from quantfx.compat.exported.rebind import rebind_annotations
from quantfx.compat.exported.strip_guards import StripGuards
from quantfx.compat.exported.take_over import take_over
from quantfx.compat.prepare.annotate_with import AnnotateWith
from quantfx.compat.prepare.create_observers import CreateObservers
from quantfx.compat.prepare.fuse_conv_bn import FuseConvBn
from quantfx.compat.prepare.transform_for_annotation import TransformForAnnotation
from quantfx.compat.terms.errors import as_raised
from quantfx.passes.annotate.share import Share
from quantfx.passes.capture.sink_constants import SinkConstants
from quantfx.passes.errors import ArgumentError
from quantfx.passes.fold.fold_batch_norm import FoldBatchNorm
from quantfx.passes.graph.clone import clone
from quantfx.passes.graph.graphs import all_graphs
from quantfx.passes.observe.insert_observers import InsertObservers
from quantfx.passes.pipeline.pipeline import Pipeline
from quantfx.passes.pipeline.record import records_of

_BATCH_NORM = torch.ops.aten.batch_norm.default
_LINEAR = torch.ops.aten.linear.default


def prepare_pipeline(quantizer: Any) -> Pipeline:
    """Return what ``prepare_pt2e`` runs.

    It leaves spellings, in-place operators and dropout as they came: what a quantizer looks for is
    its own business.
    """
    return Pipeline(
        (
            StripGuards(),
            SinkConstants(),  # weights that a branch is passed count as weights inside it
            FoldBatchNorm(),  # before the quantizer: it annotates the convolution alone
            TransformForAnnotation(quantizer),
            StripGuards(),  # again: a quantizer that exports anew gets new guards
            AnnotateWith(quantizer),
            Share(),
            CreateObservers(quantizer),  # before insertion: the quantizer may replace some
            InsertObservers(),
        ),
        name="prepare",
    )


def prepare_qat_pipeline(quantizer: Any) -> Pipeline:
    """Return what ``prepare_qat_pt2e`` runs: batch norms stay, and scale the weights they follow.

    The scaled weight is put there last, when all annotations speak of slots and no longer of nodes.
    """
    pipeline = prepare_pipeline(quantizer).without(FoldBatchNorm.name)
    return pipeline.before(InsertObservers.name, FuseConvBn())


def prepare_pt2e(model: GraphModule, quantizer: Any, *, inplace: bool = True) -> GraphModule:
    """Return ``model`` with the observers that ``quantizer`` asks for, ready to calibrate.

    Args:
        model: From ``torch.export.export(...).module()``.
        quantizer: Anything with the methods of ``Quantizer``.
        inplace: Give ``model`` itself the observers too, once all went well, as users of these
            names expect; False leaves it as it is.

    Raises:
        ArgumentError: ``model`` is not a graph.
        AnnotationError: the quantizer annotated something that cannot be observed.
    """
    return _prepare(model, prepare_pipeline(quantizer), inplace=inplace, own_tensors=False)


def prepare_qat_pt2e(model: GraphModule, quantizer: Any, *, inplace: bool = True) -> GraphModule:
    """Return ``model`` with the fake-quantize modules that ``quantizer`` asks for, to train.

    Batch norms keep their eps and momentum. The result has parameters of its own: training it
    changes neither the model that was exported nor any copy.

    Args:
        model: From ``torch.export.export(...).module()`` of a model in training mode.
        quantizer: Anything with the methods of ``Quantizer``.
        inplace: Make ``model`` itself the prepared one too; False leaves it as it is.

    Raises:
        ArgumentError: ``model`` is not a graph.
        AnnotationError: the quantizer annotated something that cannot be observed.
    """
    return _prepare(model, prepare_qat_pipeline(quantizer), inplace=inplace, own_tensors=True)


def _prepare(
    model: GraphModule, pipeline: Pipeline, *, inplace: bool, own_tensors: bool
) -> GraphModule:
    if not isinstance(model, GraphModule):
        fix = "use torch.export.export(...).module()"
        raise ArgumentError(f"a {type(model).__name__} is not a graph", rule="not-a-graph", fix=fix)
    with as_raised():
        prepared = pipeline.run(clone(model, "all") if own_tensors else model)
    rebind_annotations(prepared)
    _warn_of_linears(prepared)
    _warn_of_nothing(prepared)
    forbid_train_eval(prepared)
    if inplace:
        take_over(model, prepared)
        prepared.graph.owning_module = prepared
    return prepared


def _warn_of_linears(module: GraphModule) -> None:
    """Warn of a batch norm that stays because it works on another dimension than its linear."""
    for _, graph_module in all_graphs(module):
        for norm in graph_module.graph.find_nodes(op="call_function", target=_BATCH_NORM):
            linear = norm.args[0]
            if not isinstance(linear, Node) or linear.target is not _LINEAR:
                continue
            value = linear.meta.get("val")
            if isinstance(value, Tensor) and value.dim() > 2:
                warnings.warn(
                    f"Not fusing linear+bn at {norm.name}: {linear.name} has {value.dim()} "
                    "dimensions, and a batch norm works on the second, a linear on the last",
                    stacklevel=3,
                )


def _warn_of_nothing(module: GraphModule) -> None:
    """Warn of a quantizer that asks for nothing: the model would stay float, and nobody say so."""
    changed = {record.name for record in records_of(module) if record.changed}
    if InsertObservers.name not in changed:
        warnings.warn(
            "the quantizer annotated nothing in this graph, which stays float: call set_global, or "
            "look whether the module names and types that it was told are those of this model",
            stacklevel=4,
        )
