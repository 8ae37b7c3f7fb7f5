"""Insert the observers that a quantizer asks for into an exported model."""

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
    """Return the pipeline of ``prepare_pt2e``.

    It leaves spellings, in-place operators and dropout as they are, because quantizers look for
    them.
    """
    return Pipeline(
        (
            StripGuards(),
            SinkConstants(),  # weights that are passed to a branch count as weights inside it
            FoldBatchNorm(),  # before the quantizer, which annotates the convolution alone
            TransformForAnnotation(quantizer),
            StripGuards(),  # again: a quantizer that exports the model anew adds new guards
            AnnotateWith(quantizer),
            Share(),
            CreateObservers(quantizer),  # before insertion: the quantizer may replace some
            InsertObservers(),
        ),
        name="prepare",
    )


def prepare_qat_pipeline(quantizer: Any) -> Pipeline:
    """Return the pipeline of ``prepare_qat_pt2e``: batch norms stay and scale weights.

    The scaled weight is inserted last, when annotations refer to slots and no longer to nodes.
    """
    pipeline = prepare_pipeline(quantizer).without(FoldBatchNorm.name)
    return pipeline.before(InsertObservers.name, FuseConvBn())


def prepare_pt2e(model: GraphModule, quantizer: Any, *, inplace: bool = True) -> GraphModule:
    """Return ``model`` with the observers that ``quantizer`` asks for, ready to calibrate.

    Args:
        model: From ``torch.export.export(...).module()``.
        quantizer: Anything with the methods of ``Quantizer``.
        inplace: Also give ``model`` itself the observers once all went well, as users of PT2E
            expect; False leaves it unchanged.

    Raises:
        ArgumentError: ``model`` is not a graph.
        AnnotationError: the quantizer annotated something that cannot be observed.
    """
    return _prepare(model, prepare_pipeline(quantizer), inplace=inplace, own_tensors=False)


def prepare_qat_pt2e(model: GraphModule, quantizer: Any, *, inplace: bool = True) -> GraphModule:
    """Return ``model`` with the fake-quantize modules that ``quantizer`` asks for, to train.

    Batch norms keep their eps and momentum. The result has its own parameters: training it changes
    neither the exported model nor any copy.

    Args:
        model: From ``torch.export.export(...).module()`` of a model in training mode.
        quantizer: Anything with the methods of ``Quantizer``.
        inplace: Also turn ``model`` itself into the prepared model; False leaves it unchanged.

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
    """Warn of a batch norm that stays, as it works on another dimension than its linear."""
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
    """Warn if a quantizer asks for nothing: the model would silently stay float."""
    changed = {record.name for record in records_of(module) if record.changed}
    if InsertObservers.name not in changed:
        warnings.warn(
            "the quantizer annotated nothing in this graph, which stays float: call set_global, or "
            "check that the module names and types in its configs are those of this model",
            stacklevel=4,
        )
