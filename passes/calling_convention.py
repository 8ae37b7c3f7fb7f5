"""The calling convention of a graph, and the structure of nested values, as plain data, and back.

torch 2.13 has no public reader of ``Graph._codegen``, which holds the convention, and its reader
of structures, ``treespec_loads``, imports whatever module a text names: see ``_SAFE``.
"""

from __future__ import annotations

import json
import keyword
from typing import Any, cast

from torch.fx import Graph
from torch.fx.graph import (
    CodeGen,
    _PyTreeCodeGen,  # pyright: ignore[reportPrivateUsage]
    _PyTreeInfo,  # pyright: ignore[reportPrivateUsage]
)
from torch.utils import _pytree as pytree

from quantfx.passes.errors import FileError

# The factory of a defaultdict and the class of an enum would be imported by name.
_IMPORTING = "collections.defaultdict"
_ENUM = "__enum__"


def flatten(value: object) -> tuple[list[Any], str]:
    """Return the leaves of a nested value, and its structure as text.

    Raises:
        FileError: a container in it has no form in files.
    """
    leaves, spec = pytree.tree_flatten(value)
    return leaves, encode_structure(spec)


def unflatten(leaves: list[Any], structure: str) -> Any:
    """Return the nested value of that structure.

    Raises:
        FileError: this process does not know a container in it.
    """
    return pytree.tree_unflatten(leaves, decode_structure(structure))


def encode_structure(spec: pytree.TreeSpec) -> str:
    """Return the structure of a nested value as text.

    Raises:
        FileError: a container in it has no form in files.
    """
    try:
        text = pytree.treespec_dumps(spec)
    except (NotImplementedError, TypeError) as error:
        raise FileError(
            f"the inputs or outputs hold a container that has no form in files ({error}): register "
            "it with torch.utils._pytree.register_pytree_node(..., serialized_type_name=...), or "
            "use tuples, lists and dicts"
        ) from None
    _require_safe(text)
    return text


def decode_structure(text: str) -> pytree.TreeSpec:
    """Return the structure that ``text`` describes.

    Raises:
        FileError: this process does not know a container in it.
    """
    _require_safe(text)
    try:
        return pytree.treespec_loads(text)
    except NotImplementedError as error:
        raise FileError(
            f"{error} Import what defines and registers that container before loading"
        ) from None


def _require_safe(text: str) -> None:
    _, structure = cast(tuple[int, dict[str, Any]], json.loads(text))
    if _ENUM in text or _names(structure, _IMPORTING):
        raise FileError(
            "the inputs or outputs hold a defaultdict, or an enum among the keys of a dict: files "
            "hold none, because reading one imports modules. Use a dict with keys of text"
        )


def _names(structure: dict[str, Any], kind: str) -> bool:
    inner: list[dict[str, Any]] = structure["children_spec"]
    return structure["type"] == kind or any(_names(each, kind) for each in inner)


def encode_convention(graph: Graph) -> dict[str, Any] | None:
    """Return how ``graph`` takes its arguments and gives its results; None if flat.

    Raises:
        FileError: in a way that has no form in files.
    """
    codegen = graph._codegen  # pyright: ignore[reportPrivateUsage]
    if type(codegen) is CodeGen:
        return None
    if type(codegen) is not _PyTreeCodeGen:
        raise FileError(f"a calling convention by {type(codegen).__name__} has no form in files")
    info = codegen.pytree_info
    return {
        "arguments": list(info.orig_args),
        "inputs": encode_structure(info.in_spec),
        "outputs": None if info.out_spec is None else encode_structure(info.out_spec),
    }


def set_convention(graph: Graph, data: dict[str, Any] | None) -> None:
    """Let ``graph`` take arguments and give results as ``data`` says.

    Raises:
        FileError: this process does not know a container in it.
    """
    if data is None:
        return
    arguments: list[str] = data["arguments"]
    for name in arguments:  # they become code
        if not name.isidentifier() or keyword.iskeyword(name):
            raise FileError(f"{name!r} is no name of an argument")
    outputs = data["outputs"]
    info = _PyTreeInfo(
        arguments,
        decode_structure(data["inputs"]),
        None if outputs is None else decode_structure(outputs),
    )
    graph.set_codegen(_PyTreeCodeGen(info))
