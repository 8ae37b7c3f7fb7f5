"""Write and read the structure of nested values as text, including containers that torch cannot.

torch 2.13 cannot write named tuples as text, neither a user's nor its own results (``torch.topk``).
They are written here by name; reading looks up the names among imported modules only.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch.utils import _pytree as pytree

from quantfx.passes.errors import FileError
from quantfx.passes.inputs.caches import register_dynamic_cache

# Reading would import the factory of a defaultdict and the class of an enum by name.
_IMPORTING = "collections.defaultdict"
_ENUM = "__enum__"
# Modules that define outputs of Hugging Face models, and register them on import.
_MODEL_OUTPUTS = re.compile(
    r"(transformers\.(?:modeling_outputs|models\.\w+\.modeling_\w+))\.\w+", re.ASCII
)
_CACHE = "transformers.cache_utils.DynamicCache"
_RETURN_TYPES = "torch.return_types"


def encode_structure(spec: pytree.TreeSpec) -> str:
    """Return the structure of a nested value as text.

    Raises:
        FileError: a container in it has no form in files.
    """
    try:
        text = pytree.treespec_dumps(spec)
    except (NotImplementedError, TypeError) as error:
        return _encode_by_name(spec, error)
    _require_safe(text)
    return text


def is_torch_text(text: str | None) -> bool:
    """Whether torch itself can write that structure."""
    return text is None or not text.startswith("{")


def _encode_by_name(spec: pytree.TreeSpec, error: Exception) -> str:
    """Return the text of a structure in which some container is known by its name only."""
    children = [encode_structure(child) for child in spec.children()]
    kind = _named_tuple(spec)
    if kind is not None:
        name = f"{kind.__module__}.{kind.__qualname__}"
        return json.dumps({"named_tuple": name, "fields": list(kind._fields), "children": children})
    if getattr(spec.type, "__module__", "") == _RETURN_TYPES:
        return json.dumps({"return_type": spec.type.__name__, "children": children})
    if not all(map(is_torch_text, children)):
        leaves = [pytree.tree_structure(0)] * len(children)
        outer = encode_structure(pytree.TreeSpec(spec.type, spec.context, leaves))
        return json.dumps({"nested": outer, "children": children})
    message = f"the inputs or outputs hold a container that has no form in files ({error})"
    fix = (
        "register it with torch.utils._pytree.register_pytree_node(..., "
        "serialized_type_name=...), or use tuples, lists and dicts"
    )
    raise FileError(message, rule="no-text-form", fix=fix) from None


def _named_tuple(spec: pytree.TreeSpec) -> Any:
    """Return the class of a named tuple; None for any other container."""
    kind: Any = spec.context
    return kind if pytree.is_namedtuple_class(kind) else None


def decode_structure(text: str) -> pytree.TreeSpec:
    """Return the structure that ``text`` describes.

    Raises:
        FileError: this process does not know a container in it.
    """
    data: object = json.loads(text)
    if isinstance(data, dict):
        return _decode_by_name(cast(dict[str, Any], data))
    _require_safe(text)
    try:
        return pytree.treespec_loads(text)
    except NotImplementedError as error:
        if _import_model_outputs(text):
            return decode_structure(text)
        fix = "import the module that registers the container before loading"
        raise FileError(f"{error}", rule="not-imported", fix=fix) from None


def _decode_by_name(data: dict[str, Any]) -> pytree.TreeSpec:
    children = [decode_structure(child) for child in data["children"]]
    if "return_type" in data:
        kind: type[Any] = getattr(torch.return_types, data["return_type"], object)
        if (
            not isinstance(kind, type)
            or not pytree.is_structseq_class(kind)
            or kind.__module__ != _RETURN_TYPES
        ):
            message = f"torch {torch.__version__} has no result '{data['return_type']}'"
            raise FileError(message, rule="unknown-name", site=data["return_type"])
        return pytree.TreeSpec(kind, None, children)
    if "named_tuple" in data:
        kind = _find_imported(data["named_tuple"], data["fields"])
        leaves = kind(*[0] * len(children))
        return pytree.TreeSpec(pytree.tree_structure(leaves).type, kind, children)
    outer = decode_structure(data["nested"])
    return pytree.TreeSpec(outer.type, outer.context, children)


def _find_imported(name: str, fields: list[str]) -> Any:
    """Return a named tuple class from an imported module: reading files imports no modules."""
    for module, path in _modules(name):
        found: Any = module
        for part in path.split("."):
            found = getattr(found, part, None)
        if pytree.is_namedtuple_class(found) and list(found._fields) == fields:
            return found
    module_name = name.rpartition(".")[0]
    message = f"the file holds the named tuple {name}{tuple(fields)}, which is not defined here"
    fix = f"import {module_name} (the module that defines it) before loading"
    raise FileError(message, rule="not-imported", site=name, fix=fix)


def _modules(name: str) -> Iterator[tuple[object, str]]:
    """Yield imported modules that may hold ``name``, with its path inside the module."""
    parts = name.split(".")
    for count in range(len(parts) - 1, 0, -1):
        module = sys.modules.get(".".join(parts[:count]))
        if module is not None:
            yield module, ".".join(parts[count:])


def _import_model_outputs(text: str) -> bool:
    """Import the modules of transformers that ``text`` needs; return whether any were found.

    Only modules inside that package are imported: a file cannot cause any other import.

    Raises:
        FileError: the package is not installed, or has no such module.
    """
    _, structure = cast(tuple[int, dict[str, Any]], json.loads(text))
    known = _CACHE in _types(structure) and register_dynamic_cache()
    matches = [_MODEL_OUTPUTS.fullmatch(kind) for kind in _types(structure)]
    names = sorted({match[1] for match in matches if match} - sys.modules.keys())
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise FileError(
                f"the model returns an output of Hugging Face, {name}, which cannot be imported "
                f"here ({error})",
                rule="not-imported",
                site=name,
                fix="pip install transformers",
            ) from None
    return bool(names) or known


def _types(structure: dict[str, Any]) -> Iterator[str]:
    if structure["type"]:
        yield structure["type"]
    for child in structure["children_spec"]:
        yield from _types(child)


def _require_safe(text: str) -> None:
    _, structure = cast(tuple[int, dict[str, Any]], json.loads(text))
    if _ENUM in text or _IMPORTING in _types(structure):
        raise FileError(
            "the inputs or outputs hold a defaultdict, or an enum among the keys of a dict, and "
            "files hold neither, because reading them imports modules.",
            rule="no-text-form",
            fix="use a dict with keys of text",
        )
