"""Everything that quantfx uses of Dynamo without a public name (torch 2.13).

``require_internals`` reports what the running torch lacks before anything is compiled. For another
torch, adapt this file first. Inductor's part is in ``backends/inductor/torch_internals.py``.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import KW_ONLY, dataclass
from functools import lru_cache
from types import CodeType
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx import GraphModule, Interpreter, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.traceback import preserve_node_meta

from quantfx.backends.inductor.compile_attempts import place_of, resumes
from quantfx.backends.inductor.torch_internals import current_translator
from quantfx.dynamo.flatten_vmap import flatten_vmap
from quantfx.patterns.errors import QuantfxError
from quantfx.patterns.torch_version import TESTED

_NEEDED = (
    ("torch._dynamo.guards", "GuardBuilder"),
    ("torch._dynamo.guards", "install_guard"),
    ("torch._dynamo.source", "AttrSource"),
    ("torch._dynamo.source", "LocalSource"),
    ("torch._dynamo.symbolic_convert", "InstructionTranslator"),
    ("torch._dynamo.symbolic_convert", "TensorifyState"),
    ("torch._dynamo.exc", "TensorifyScalarRestartAnalysis"),
    ("torch._dynamo.convert_frame", "compile_lock"),
    ("torch._dynamo.convert_frame", "_compile"),
    ("torch._dynamo.utils", "register_hook_for_recompile_user_context"),
    ("torch._dynamo.cache_size", "exceeds_recompile_limit"),
    ("torch._dynamo.guards", "get_and_maybe_log_recompilation_reasons"),
    ("torch._dynamo.eval_frame", "_get_total_cache_entry_count"),
)
# Dynamo's calls for a region with or without gradients.
SWITCHES_GRADIENTS: Any = torch._C._set_grad_enabled  # pyright: ignore[reportPrivateUsage]
# Files with frames between the user's compiled call and the first frame that Dynamo traces.
_CALLS_MODULES = ("torch/nn/modules/module.py",)
_ENTERS = "torch/_dynamo/eval_frame.py"


def compile_lock() -> AbstractContextManager[Any]:
    """Return the lock that Dynamo and Inductor hold while compiling, one thread at a time.

    Take this lock before any other lock that is held while compiling.
    """
    from torch._dynamo import convert_frame

    return convert_frame.compile_lock


class OutsideDynamo(QuantfxError):
    """A backend was called outside of a running ``torch.compile``."""


@lru_cache(maxsize=1)
def require_internals() -> None:
    """Check that this torch has every private name used here.

    Raises:
        QuantfxError: names the missing ones.
    """
    for module, name in _NEEDED:
        if not hasattr(importlib.import_module(module), name):
            raise QuantfxError(
                f"torch {torch.__version__} has no {module}.{name}, which quantfx's torch.compile "
                "backends need",
                rule="torch-internals",
                site=f"{module}.{name}",
                fix=f"use torch {TESTED[-1]}, or quantfx.quantize, which does without Dynamo",
            )


@dataclass(frozen=True)
class Frame:
    """The Python frame that Dynamo compiles.

    Attributes:
        code: The same object for every compilation of the frame; a frame that resumes after a graph
            break has its own code.
        values: Its local variables at entry, by name.
        scope: Its global variables.
        resumes: Whether it resumes after a graph break.
        outermost: Whether the user's call runs it directly, not through another function.
    """

    code: CodeType
    _: KW_ONLY
    values: Mapping[str, Any]
    scope: Mapping[str, Any]
    resumes: bool
    outermost: bool

    @property
    def where(self) -> str:
        """Function and place, for messages."""
        return place_of(self.code)


def current_frame() -> Frame:
    """Return the frame that is being compiled.

    Raises:
        OutsideDynamo: no frame is being compiled.
    """
    translator = current_translator()
    if translator is None:
        message = "a quantfx backend was called outside of torch.compile"
        fix = "pass its name, torch.compile(model, backend='quantfx_x86')"
        raise OutsideDynamo(message, rule="outside-dynamo", fix=fix)
    code: CodeType = translator.f_code
    return Frame(
        code,
        values=translator.f_locals,
        scope=translator.f_globals,
        resumes=resumes(code),
        outermost=_is_outermost(),
    )


def _is_outermost() -> bool:
    """Whether only module calls lie between the user's call and the frame."""
    frame = inspect.currentframe()
    callers: list[str] = []
    while frame is not None:
        callers.append(frame.f_code.co_filename.replace("\\", "/"))
        frame = frame.f_back
    compiler = max((i for i, name in enumerate(callers) if "torch/_dynamo/convert_frame" in name))
    for name in callers[compiler + 1 :]:
        if name.endswith(_ENTERS):
            return True
        if not name.endswith(_CALLS_MODULES):
            return False
    return False


@dataclass(frozen=True)
class GraphInput:
    """One input of Dynamo's graph.

    Attributes:
        node: Its placeholder.
        source: Python expression of its value, e.g. ``L['self']._parameters['weight']``; empty for
            a size that came as part of a shape.
        static: Whether it is a parameter, buffer or other tensor attribute of a module.
    """

    node: Node
    source: str
    static: bool

    def evaluate(self, values: Mapping[str, Any], scope: Mapping[str, Any]) -> Any:
        """Return the value of the source for other local variables.

        Raises:
            LookupError: the source reads something that these lack.
        """
        return _evaluate(self.source, values, scope)


def _evaluate(source: str, values: Mapping[str, Any], scope: Mapping[str, Any]) -> Any:
    try:
        return eval(source, {"L": values, "G": scope, "torch": torch})
    except (KeyError, IndexError, AttributeError, TypeError, NameError) as error:
        raise LookupError(f"{source}: {type(error).__name__}: {error}") from error


def graph_inputs(graph: GraphModule) -> list[GraphInput]:
    """Return the inputs of a graph that Dynamo hands to a backend, in its order."""
    return [
        GraphInput(node, _source_name(node), _is_static(node))
        for node in graph.graph.find_nodes(op="placeholder")
    ]


def _source_name(node: Node) -> str:
    argument = node.meta.get("grapharg")
    source = getattr(argument, "source", None)
    return str(source.name) if source is not None else ""


def _is_static(node: Node) -> bool:
    return "_dynamo_static_input_type" in node.meta.get("tensor_dict", {})


def guard_identity(node: Node, frame: Frame) -> None:
    """Make Dynamo compile anew once another object is passed for the input ``node``.

    If the object belongs to a module in a local variable, that variable is guarded as well:
    Dynamo's limit of 8 graphs per function then counts for each module by itself, so that a hundred
    equal layers can have a graph each.
    """
    from torch._dynamo.guards import GuardBuilder, install_guard
    from torch._dynamo.source import LocalSource

    source: Any = node.meta["grapharg"].source
    install_guard(source.make_guard(GuardBuilder.ID_MATCH))
    while (base := getattr(source, "base", None)) is not None:
        source = base
    if isinstance(source, LocalSource) and isinstance(
        frame.values.get(source.local_name), nn.Module
    ):
        install_guard(source.make_guard(GuardBuilder.ID_MATCH))


def owner_of(node: Node, frame: Frame) -> nn.Module | None:
    """Return the module whose parameter or buffer the input ``node`` is; None if there is none."""
    source = _owner_source(node)
    if source is None:
        return None
    try:
        owner = _evaluate(source.name, frame.values, frame.scope)
    except (LookupError, SyntaxError):  # a source that names an object of Dynamo
        return None
    return owner if isinstance(owner, nn.Module) else None


def guard_mode(node: Node) -> None:
    """Make Dynamo compile anew once the module that owns the input ``node`` changes its mode."""
    from torch._dynamo.guards import GuardBuilder, install_guard
    from torch._dynamo.source import AttrSource

    source = _owner_source(node)
    assert source is not None, "owner_of found it"
    install_guard(AttrSource(source, "training").make_guard(GuardBuilder.CONSTANT_MATCH))


def _owner_source(node: Node) -> Any:
    source: Any = getattr(node.meta.get("grapharg"), "source", None)
    while source is not None:
        if getattr(source, "member", None) in ("_parameters", "_buffers"):
            return source.base
        source = getattr(source, "base", None)
    return None


def specialize_floats(graph: GraphModule) -> None:
    """Make Dynamo restart with Python floats as constants, if any came as inputs.

    With ``dynamic=True`` a float such as ``eps`` is passed as a tensor and read by ``item``.

    Raises:
        TensorifyScalarRestartAnalysis: Dynamo's own signal to start again.
    """
    from torch._dynamo.exc import TensorifyScalarRestartAnalysis
    from torch._dynamo.symbolic_convert import TensorifyState

    symbols = [
        symbol
        for node in graph.graph.find_nodes(op="placeholder")
        if (symbol := _float_symbol(node)) is not None
    ]
    if symbols:
        for symbol in symbols:
            TensorifyState.specialize(symbol)
        raise TensorifyScalarRestartAnalysis


def _float_symbol(node: Node) -> str | None:
    value = node.meta.get("example_value")
    memo = getattr(value, "item_memo", None)
    if not isinstance(memo, torch.SymFloat) or any(user.target != "item" for user in node.users):
        return None
    # Not ``expr``, in which the symbol may have been replaced by its value already.
    name = getattr(memo.node._expr, "name", None)
    return str(name) if name is not None else None


def trace(graph: GraphModule) -> GraphModule:
    """Return Dynamo's graph in ATen operators, with the same inputs and outputs.

    The operators are those of ``torch.export``: composite ones stay whole. Autocast is off, so
    that shapes and dtypes are those of the model itself.
    """
    inputs = [node.meta["example_value"] for node in graph.graph.find_nodes(op="placeholder")]

    modes = (value.fake_mode for value in inputs if isinstance(value, FakeTensor))
    # Branches of control flow are traced with intermediate tensors, which must be fakes too.
    fakes = next(modes, None) or contextlib.nullcontext()
    with (
        preserve_node_meta(),
        torch.no_grad(),
        torch.autocast("cpu", enabled=False),
        fakes,
    ):
        flat = Interpreter(flatten_vmap(graph))

        def run(*args: Any) -> Any:
            return flat.run(*args)

        traced: GraphModule = make_fx(run, pre_dispatch=True)(*inputs)
    return traced
