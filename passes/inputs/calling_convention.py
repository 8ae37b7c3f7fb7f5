"""Convert a graph's calling convention and the structure of nested values to and from plain data.

torch 2.13 has no public reader of ``Graph._codegen``, which holds the convention.
"""

from __future__ import annotations

import keyword
from collections.abc import Callable
from typing import Any

from torch.fx import Graph
from torch.fx.graph import (
    CodeGen,
    _PyTreeCodeGen,  # pyright: ignore[reportPrivateUsage]
    _PyTreeInfo,  # pyright: ignore[reportPrivateUsage]
)
from torch.utils import _pytree as pytree

from quantfx.passes.errors import FileError
from quantfx.passes.inputs.structure_text import decode_structure, encode_structure


def flatten(value: object) -> tuple[list[Any], str]:
    """Return the leaves of a nested value, and its structure as text.

    Raises:
        FileError: a container in it has no form in files.
    """
    leaves, spec = pytree.tree_flatten(value)
    return leaves, encode_structure(spec)


def unflatten(leaves: list[Any], structure: str) -> Any:
    """Return the nested value with that structure.

    Raises:
        FileError: this process does not know a container in it.
    """
    return pytree.tree_unflatten(leaves, decode_structure(structure))


def encode_convention(graph: Graph) -> dict[str, Any] | None:
    """Return how ``graph`` takes arguments and returns results as plain data; None if flat.

    Raises:
        FileError: files cannot hold the convention.
    """
    codegen = graph._codegen  # pyright: ignore[reportPrivateUsage]
    if type(codegen) is CodeGen:
        return None
    if type(codegen) is not _PyTreeCodeGen:
        message = f"a calling convention by {type(codegen).__name__} has no form in files"
        raise FileError(message, rule="no-text-form")
    info = codegen.pytree_info
    return {
        "arguments": list(info.orig_args),
        "inputs": encode_structure(info.in_spec),
        "outputs": None if info.out_spec is None else encode_structure(info.out_spec),
    }


def set_convention(graph: Graph, data: dict[str, Any] | None) -> None:
    """Let ``graph`` take arguments and return results as ``data`` says.

    Raises:
        FileError: this process does not know a container in it.
    """
    if data is None:
        return
    arguments: list[str] = data["arguments"]
    for name in arguments:  # the names become code
        if not name.isidentifier() or keyword.iskeyword(name):
            raise FileError(
                f"{name!r} is not the name of an argument", rule="damaged-file", site=repr(name)
            )
    outputs = data["outputs"]
    info = _PyTreeInfo(
        arguments,
        decode_structure(data["inputs"]),
        None if outputs is None else decode_structure(outputs),
    )
    graph.set_codegen(_PyTreeCodeGen(info))


def holds_library_container(graph: Graph) -> bool:
    """Whether arguments or results hold a container other than a dict, list or tuple."""
    codegen = graph._codegen  # pyright: ignore[reportPrivateUsage]
    if not isinstance(codegen, _PyTreeCodeGen):
        return False
    specs = codegen.pytree_info.in_spec, codegen.pytree_info.out_spec
    return any(_is_of_library(spec) for spec in specs if spec is not None)


def is_of_library(value: object) -> bool:
    """Whether ``value`` is, or holds, such a container."""
    return _is_of_library(pytree.tree_structure(value))


def _is_of_library(spec: pytree.TreeSpec) -> bool:
    if spec.is_leaf():
        return False
    plain = isinstance(spec.type, type) and issubclass(spec.type, (dict, list, tuple))
    known = plain or spec.type in pytree.BUILTIN_TYPES
    return not known or any(map(_is_of_library, spec.children()))


def take_inputs_apart(graph: Graph) -> None:
    """Let ``graph`` take the leaves of its arguments one by one; its results are flat already."""
    graph.set_codegen(CodeGen())


def take_outputs_apart(graph: Graph) -> Callable[[Any], Any]:
    """Let ``graph`` return its results' leaves in a tuple; return a function that nests them."""
    codegen = graph._codegen  # pyright: ignore[reportPrivateUsage]
    spec = codegen.pytree_info.out_spec if isinstance(codegen, _PyTreeCodeGen) else None
    if isinstance(codegen, _PyTreeCodeGen) and spec is not None:
        info = codegen.pytree_info
        graph.set_codegen(_PyTreeCodeGen(_PyTreeInfo(info.orig_args, info.in_spec, None)))
    else:
        (output,) = graph.find_nodes(op="output")
        leaves, spec = pytree.tree_flatten(output.args[0])
        output.args = (tuple(leaves),)

    def nested(leaves: Any) -> Any:
        return pytree.tree_unflatten(leaves, spec)

    return nested
