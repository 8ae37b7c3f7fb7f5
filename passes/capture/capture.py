"""Turn the user's model into a plain, picklable graph module of ATen operators."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule

from quantfx.passes.capture.canonicalize import CANONICALIZE, CANONICALIZE_TRAINING
from quantfx.passes.capture.compare_capture import compare_capture
from quantfx.passes.capture.dict_order import order_is_free
from quantfx.passes.capture.few_rows import agrees, is_all_real, let_few_in
from quantfx.passes.errors import CaptureError
from quantfx.passes.export.export_graph import export_graph
from quantfx.passes.export.export_reason import advised
from quantfx.passes.export.free_sizes import Export, FreeSizes, export_freely, sizes_of
from quantfx.passes.export.size_asserts import keep_asserts
from quantfx.passes.export.training_graph import training_graph
from quantfx.passes.export.watch_layout import LAYOUT_KEY
from quantfx.passes.graph.clone import clone, recompile
from quantfx.passes.graph.facts import TRAINABLE, set_facts
from quantfx.passes.graph.garbage import paused_garbage_collection
from quantfx.passes.graph.silent_modules import find_silent_modules, set_silent_modules
from quantfx.passes.graph.state import own_state
from quantfx.passes.inputs.call_arguments import Examples
from quantfx.passes.inputs.contract import InputContract, form_of_leaf, set_contract
from quantfx.passes.inputs.example import in_order
from quantfx.passes.inputs.leaves import Inputs, input_leaves, structure_text
from quantfx.passes.inputs.shapes_line import gather_shapes
from quantfx.passes.model.given import GivenModel, Model, given_model, has_one_mode
from quantfx.passes.model.state import restored
from quantfx.passes.pipeline.pipeline import Pipeline
from quantfx.patterns.torch_version import warn_of_untested


def capture(
    model: Model,
    example_inputs: Examples = (),
    example_kwargs: dict[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
    training: bool = False,
    pipeline: Pipeline | None = None,
    check_inputs: bool = True,
    compare: bool = True,
) -> GraphModule:
    """Return the canonical ATen graph of ``model``, by default in eval mode.

    The model is exported by ``torch.export`` (its training IR: linear, conv2d and batch_norm stay
    whole) and canonicalized. The result shares the parameters' storage with the model but never
    writes to it; buffers are copied, because a forward call may change them.

    Args:
        model: A module, a function of tensors, an ``ExportedProgram`` or the path of its ``.pt2``
            file: see ``given_model``. In eval mode unless ``training``; not changed.
        example_inputs: Arguments that the model accepts: one tensor, a tuple of positional or a
            mapping of keyword arguments. The graph's shapes are fixed to these.
        example_kwargs: Keyword arguments.
        dynamic_shapes: Dimensions that stay free, as for ``torch.export.export``; elements of
            ``*args`` may also have their names in the graph, such as ``args_0``.
        training: For quantization-aware training: batch norms and dropouts follow the ``train()``
            and ``eval()`` of the graph, and parameters require gradients. Submodules in eval mode
            while the model trains stay so.
        pipeline: What canonicalizes the exported graph; ``CANONICALIZE`` by default, or
            ``CANONICALIZE_TRAINING``.
        check_inputs: Whether the graph, and everything made from it, raises ``InputError`` for
            inputs that it is not valid for: shapes other than the example's (except for
            ``dynamic_shapes`` and a first dimension that nothing depends on), other dtypes,
            devices, structures, numbers, flags or strings, and layouts if the model reads them.
            Costs about 0.5 us per input and call.
        compare: Whether to call model and graph with copies of the example inputs, warn if they
            differ, and refuse a model whose results depend on state outside of buffers.

    Raises:
        CaptureError: the model is in training mode without ``training``, torch.export rejects it,
            training and evaluation take different paths, or the model keeps state in plain
            attributes.
    """
    given = given_model(model, example_inputs, example_kwargs, dynamic_shapes)
    return capture_given(
        given, training=training, pipeline=pipeline, check_inputs=check_inputs, compare=compare
    )


def capture_given(
    given: GivenModel,
    *,
    training: bool = False,
    pipeline: Pipeline | None = None,
    check_inputs: bool = True,
    compare: bool = True,
) -> GraphModule:
    """Do what ``capture`` does, with model and examples as ``given_model`` returns them."""
    warn_of_untested()
    model, dynamic_shapes = given.module, given.dynamic_shapes
    _require_mode(model, training)
    copied = partial(clone, copies="buffers", gradients=training)
    export = partial(_export, model, training_graph if training else export_graph, copied, compare)
    inputs = given.args, in_order(model, given.kwargs)
    with advised(model, inputs):
        module, sizes = _export_with_sizes(model, export, inputs, dynamic_shapes, check_inputs)
    own_state(module)
    set_facts(module, frozenset({"captured", TRAINABLE} if training else {"captured"}))
    module.train(training)
    if sizes.asserts is not None and sizes.ranges:
        keep_asserts(module, sizes.asserts)
    set_contract(module, _contract(model, module, inputs, sizes, check_inputs))
    if pipeline is None:
        pipeline = CANONICALIZE_TRAINING if training else CANONICALIZE
    set_silent_modules(module, find_silent_modules(model, module))
    pipeline.run_in_place(module)
    let_few_in(model, module, inputs)
    if compare:
        compare_capture(model, module, *inputs, training=training)
    return module


def _export_with_sizes(
    model: nn.Module, export: Export, inputs: Inputs, shapes: Any, checked: bool
) -> tuple[GraphModule, FreeSizes]:
    """Return the graph for the example, and the other sizes it is valid for."""
    if checked and shapes is None:
        agreeing = partial(_agrees, model, inputs)
        return export_freely(export, inspect.signature(model.forward), *inputs, agreeing)
    graph = export(*inputs, shapes)
    return graph, sizes_of(graph)


def _agrees(model: nn.Module, inputs: Inputs, exported: GraphModule) -> bool:
    return is_all_real(model, inputs) and agrees(model, exported, inputs)


def _export(
    model: nn.Module,
    export: Callable[[nn.Module, tuple[Any, ...], dict[str, Any] | None, Any], GraphModule],
    copied: Callable[[GraphModule], GraphModule],
    judged: bool,
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None,
    shapes: Any,
) -> GraphModule:
    """Return a separate graph, and restore ``model``, in which torch leaves fake attributes."""
    with (
        paused_garbage_collection(),
        restored(model, buffers=False),
        warnings.catch_warnings(),
    ):
        if judged:  # compare_capture checks what assigned attributes do to results
            warnings.filterwarnings("ignore", message=r".*assigned during export")
        shapes = gather_shapes(shapes, inspect.signature(model.forward), args, kwargs or {})
        module = copied(export(model, args, kwargs, shapes))
    recompile(module)
    return module


def _contract(
    model: nn.Module,
    module: GraphModule,
    inputs: tuple[tuple[Any, ...], dict[str, Any]],
    sizes: FreeSizes,
    checked: bool,
) -> InputContract:
    leaves = input_leaves(module, *inputs)
    layout = bool(module.meta.pop(LAYOUT_KEY, False))
    forms = tuple(
        form_of_leaf(path, leaf, known, sizes.ranges, layout=layout)
        for (path, leaf), known in zip(leaves, sizes.values, strict=True)
    )
    signature = inspect.signature(module.forward)
    given = signature.bind(*inputs[0], **inputs[1]).arguments
    turned = checked and order_is_free(model, inputs)
    return InputContract(
        tuple(signature.parameters),
        forms,
        ranges=sizes.ranges,
        conditions=sizes.conditions,
        checked=checked,
        structures=tuple(map(structure_text, given.values())),
        positional=_count_same_places(model, tuple(signature.parameters)),
        unordered=tuple(structure_text(each, ordered=False) for each in given.values())
        if turned
        else (),
    )


def _count_same_places(model: nn.Module, arguments: tuple[str, ...]) -> int:
    """Return how many leading arguments of the graph have the same position in the model."""
    takes = inspect.signature(model.forward).parameters.values()
    places = [each for each in takes if each.kind not in (each.KEYWORD_ONLY, each.VAR_KEYWORD)]
    for place, (name, own) in enumerate(zip(arguments, places, strict=False)):
        if own.kind is own.VAR_POSITIONAL:
            break
        if own.name != name:
            return place
    return len(arguments)


def _require_mode(model: nn.Module, training: bool) -> None:
    if training and torch.is_inference_mode_enabled():
        message = "inference mode has no gradients to train with"
        fix = "capture outside of torch.inference_mode()"
        raise CaptureError(message, rule="inference-mode", fix=fix)
    if has_one_mode(model):
        if training:
            message = "an exported graph has a fixed mode and cannot be trained"
            fix = "give the model that it was exported from"
            raise CaptureError(message, rule="captured-mode", fix=fix)
        return
    modes = [name for name, module in model.named_modules() if module.training]
    if modes and not training:
        more = f" and {len(modes) - 1} more" if len(modes) > 1 else ""
        message = f"{type(model).__name__} is in training mode ('{modes[0] or 'the model'}'{more})"
        fix = "call model.eval() first, or capture with training=True to train it quantized"
        raise CaptureError(message, rule="captured-mode", site=modes[0], fix=fix)
