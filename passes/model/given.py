"""Get a module from what the user passes: a program, a function, a wrapper."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule, Node
from torch.nn.parallel import DataParallel, DistributedDataParallel

from quantfx.passes.errors import CaptureError
from quantfx.passes.graph.clone import clone, recompile
from quantfx.passes.graph.graphs import all_graphs, nested
from quantfx.passes.inputs.caches import know_caches
from quantfx.passes.inputs.call_arguments import Examples, example_arguments
from quantfx.passes.inputs.leaves import Inputs, map_leaves
from quantfx.passes.model.packed_sequence import require_no_packed
from quantfx.passes.model.trains import trains
from quantfx.patterns.schema import is_operator_call

Model = nn.Module | ExportedProgram | Callable[..., Any] | str | Path
"""What can be captured: a module, a function of tensors, an ``ExportedProgram`` or its file."""


_INT8 = ("torch.ao.nn.quantized.", "torch.ao.nn.intrinsic.quantized.")
_FLOAT_THERE = ("FloatFunctional", "FXFloatFunctional")  # these compute in float


@dataclass(frozen=True)
class GivenModel:
    """A module to capture and its example inputs.

    Attributes:
        module: The module.
        args: Positional example inputs.
        kwargs: Keyword example inputs.
        dynamic_shapes: Dimensions that stay free, as for ``torch.export.export``.
    """

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    dynamic_shapes: Any


def given_model(
    model: Model,
    example_inputs: Examples,
    example_kwargs: Mapping[str, Any] | None,
    dynamic_shapes: Any,
) -> GivenModel:
    """Return the user's model and examples in the form that the rest of capture uses.

    A program without given examples uses the examples of its export, and keeps its free dimensions.

    Raises:
        CaptureError: there is no module to capture, or the examples do not fit the module or hold a
            packed sequence.
    """
    if isinstance(model, (str, Path)):
        model = _load(Path(model))
    program = model if isinstance(model, ExportedProgram) else None
    module = module_of(model)
    given, named = example_inputs, example_kwargs
    if program and program.example_inputs and not named and _is_nothing(given):
        given, named = program.example_inputs
    require_no_packed(given, named)
    args, kwargs = example_arguments(module, given, named)
    know_caches((args, kwargs))
    if dynamic_shapes is None and has_one_mode(module):
        dynamic_shapes = _free_dimensions(module, (args, kwargs))
    return GivenModel(module, args, kwargs, dynamic_shapes)


def _is_nothing(given: Examples) -> bool:
    return isinstance(given, (tuple, list)) and not given


def module_of(model: Model) -> nn.Module:
    """Return the module to capture: ``model`` itself, or one that computes what it computes.

    A function is wrapped. Modules that it refers to (as its owner, in its closure, among its
    globals) become submodules under their names in the function; ``_`` is appended to a name that
    every module uses, such as ``half``. ``DataParallel`` is replaced by the module inside. A
    program computes in the mode that it was exported in.

    Raises:
        CaptureError: the model is scripted or traced, was exported in training mode, is a graph
            whose branches hold tensors, or cannot be captured at all.
    """
    if isinstance(model, ExportedProgram):
        model = model.module(check_guards=False)
    if isinstance(model, (DataParallel, DistributedDataParallel)):
        return module_of(model.module)
    if isinstance(model, (torch.jit.ScriptModule, torch.jit.ScriptFunction)):
        kind = "a scripted or traced model" if isinstance(model, nn.Module) else "a script function"
        message = f"{kind} has no Python code that torch.export can read"
        fix = (
            "make the original model, and give it the weights:\n    model = "
            "Model().eval()\n    model.load_state_dict(scripted.state_dict())"
        )
        raise CaptureError(message, rule="not-a-model", fix=fix)
    if isinstance(model, GraphModule) and has_one_mode(model):
        _require_evaluation(model)
        _require_tensors_outside(model)
        copy = clone(model)  # torch forbids train() and eval() on the original
        recompile(copy)
        return copy.eval()
    if isinstance(model, nn.Module):
        require_float(model)
        return model
    if not callable(model) or isinstance(model, type):
        raise CaptureError(
            f"the model is a {type(model).__name__}, not a torch.nn.Module, a function of "
            "tensors, a torch.export.ExportedProgram or its path",
            rule="not-a-model",
        )
    return _Function(model)


def has_one_mode(model: nn.Module) -> bool:
    """Whether a module is an exported graph: train() and eval() do not change such a graph.

    All its operators may be in nested graphs, as for a forward under ``torch.no_grad()``.
    """
    return isinstance(model, GraphModule) and any(map(is_operator_call, _all_nodes(model)))


def _all_nodes(module: GraphModule) -> Iterator[Node]:
    for _, graph in all_graphs(module):
        yield from graph.graph.nodes


class _Function(nn.Module):
    """A module whose forward is a given function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        for name, module in dict(_modules_in(function)).items():
            self.add_module(f"{name}_" if hasattr(self, name) else name, module)
        self.forward = function
        self.training = False


def _modules_in(function: Callable[..., Any]) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules that a function refers to, with their names in the function."""
    while isinstance(function, functools.partial):
        given = {f"argument_{i}": value for i, value in enumerate(function.args)}
        yield from _only_modules(given | function.keywords)
        function = function.func
    if inspect.ismethod(function):
        owner: object = function.__self__
        found = {"model": owner} if isinstance(owner, nn.Module) else dict(vars(owner))
        yield from _only_modules(found)
        function = function.__func__
    if isinstance(function, nn.Module):
        yield "model", function
    elif inspect.isfunction(function):
        names = inspect.getclosurevars(function)
        yield from _only_modules({**names.globals, **names.nonlocals})
    elif hasattr(function, "__dict__"):
        yield from _only_modules(vars(function))


def _only_modules(values: dict[str, Any]) -> Iterator[tuple[str, nn.Module]]:
    for name, value in values.items():
        if isinstance(value, nn.Module):
            yield name, value


def _load(path: Path) -> ExportedProgram:
    if path.suffix != ".pt2":
        raise CaptureError(
            f"the model is the path {str(path)!r}, not the path of a .pt2 file that "
            "torch.export.save wrote",
            rule="not-a-model",
            site=str(path),
        )
    if not path.is_file():  # otherwise torch logs a traceback
        message = f"{str(path)!r}: there is no such file"
        raise CaptureError(message, rule="unreadable-file", site=str(path))
    try:
        return torch.export.load(path)
    except Exception as error:  # torch raises many kinds for a file that it cannot read
        message = f"torch.export.load cannot read {str(path)!r}: {error}"
        raise CaptureError(message, rule="unreadable-file", site=str(path)) from error


def _free_dimensions(module: nn.Module, inputs: Inputs) -> Any:
    """Return the dimensions that an exported graph leaves free, as dynamic shapes; None if none."""
    if not isinstance(module, GraphModule):
        return None
    values = iter([node.meta.get("val") for node in module.graph.find_nodes(op="placeholder")])
    found: list[bool] = []

    def dimensions(_: object) -> dict[int, Any] | None:
        value = next(values, None)
        sizes = tuple(value.shape) if isinstance(value, Tensor) else ()
        free = {place: Dim.AUTO for place, size in enumerate(sizes) if not isinstance(size, int)}
        found.append(bool(free))
        return free or None

    args, kwargs = map_leaves(dimensions, inputs)
    names = inspect.signature(module.forward).parameters
    return {**dict(zip(names, args, strict=False)), **kwargs} if any(found) else None


def _require_tensors_outside(module: GraphModule) -> None:
    """Refuse nested graphs that hold tensors, as in captured graphs: torch.export loses these."""
    for node, inner in nested(module):
        if inner.state_dict():
            message = f"torch.export takes no branch that holds tensors, as {node.target} does"
            fix = (
                "give the model that the graph was captured from, or a captured graph to the "
                "backend's prepare()"
            )
            raise CaptureError(message, rule="export-rejects", site=str(node.target), fix=fix)


def _require_evaluation(module: GraphModule) -> None:
    for node in _all_nodes(module):
        if trains(node):
            message = f"{node.name} computes as in training"
            fix = "call model.eval() before torch.export.export, whose graphs keep the model's mode"
            raise CaptureError(message, rule="captured-mode", site=node.name, fix=fix)


def require_float(model: nn.Module) -> None:
    """Raise unless a model computes in float and torch.export can follow it.

    Models prepared for training with ``FusedMovingAvgObsFakeQuantize``, the fake quantize of all
    torch.ao default qconfigs, are accepted: its graph has one operator per fake quantize, see
    ``adopt-fake-quantize``.

    Raises:
        CaptureError: the model has int8 layers, observers, or fake quantizes that branch on tensor
            values.
    """
    for name, module in model.named_modules():
        kinds = {each.__name__ for each in type(module).__mro__ if "torch.ao." in each.__module__}
        if type(module).__module__.startswith(_INT8) and kinds.isdisjoint(_FLOAT_THERE):
            message = f"'{name}' is a {type(module).__name__}, which is int8 already"
            fix = "give the float model that torch.ao converted"
            raise CaptureError(message, rule="not-float", site=name, fix=fix)
        if "ObserverBase" in kinds and not _is_fake_quantized(model, name):
            message = f"'{name}' is a {type(module).__name__}, an observer of torch.ao"
            fix = "give the float model that torch.ao prepared; calibration= observes again"
            raise CaptureError(message, rule="not-float", site=name, fix=fix)
        if "FakeQuantizeBase" in kinds and "FusedMovingAvgObsFakeQuantize" not in kinds:
            raise CaptureError(
                f"'{name}' is a {type(module).__name__}, which branches on the values of a tensor",
                rule="not-float",
                site=name,
                fix=(
                    "train with a qconfig of FusedMovingAvgObsFakeQuantize, as "
                    "torch.ao.quantization.get_default_qat_qconfig('x86') has, or put "
                    "nn.Identity() in its place"
                ),
            )


def _is_fake_quantized(model: nn.Module, name: str) -> bool:
    """Whether an observer is part of a fake quantize, which is checked as a whole."""
    parent = model.get_submodule(name.rpartition(".")[0])
    return any(each.__name__ == "FakeQuantizeBase" for each in type(parent).__mro__)
