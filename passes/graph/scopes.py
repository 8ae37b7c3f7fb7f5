"""Names of what a node calls, and of the modules it was called in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from torch._ops import HigherOrderOperator, OpOverload
from torch.fx import Node

# torch.compile names the root after the caller's variable: L['s'], G['model'].
_ROOT = re.compile(r"^(?:[LG]\['[^']*'\]|L__self__)\.?")


_CALL_COUNTER = re.compile(r"@\d+$")


# The exporter's scope for nodes that come from no module, such as sym_size.
_NO_MODULE = "_empty_nn_module_stack_from_metadata_hook"


_PLAIN_NAMESPACES = ("aten", "prims", "quantized_decomposed")


def module_stack(node: Node) -> list[tuple[str, str]]:
    """Return ``(path, class name)`` of the modules ``node`` was called in, outermost first."""
    stack: Mapping[str, tuple[str, object]] = node.meta.get("nn_module_stack") or {}
    return [(_module_path(path), _class_name(kind)) for path, kind in stack.values()]


def module_types(node: Node) -> list[str]:
    """Return the qualified class names of the modules ``node`` was called in, outermost first."""
    stack: Mapping[str, tuple[str, object]] = node.meta.get("nn_module_stack") or {}
    names = [qualified_name(kind) for _, kind in stack.values()]
    return [name for name in names if name != _NO_MODULE]


def module_scope(node: Node) -> str:
    """Return the path of the innermost module ``node`` was called in; ``""`` at the top."""
    stack = module_stack(node)
    return stack[-1][0] if stack else ""


def op_name(node: Node) -> str:
    """Return a short name of what ``node`` calls: ``conv2d``, ``onednn.qlinear_pointwise``."""
    target = node.target
    if isinstance(target, str):
        return target
    if isinstance(target, OpOverload):
        namespace, name = str(target).rpartition(".")[0].split(".", 1)
        return name if namespace in _PLAIN_NAMESPACES else f"{namespace}.{name}"
    if isinstance(target, HigherOrderOperator):
        return str(target.__name__)
    return target.__name__


@lru_cache(maxsize=65536)
def _module_path(path: str) -> str:
    if path == _NO_MODULE:
        return ""
    return _CALL_COUNTER.sub("", _ROOT.sub("", path))


def _class_name(kind: object) -> str:
    name = qualified_name(kind)
    return "" if name == _NO_MODULE else name.rpartition(".")[2]


def qualified_name(kind: object) -> str:
    """Return the name of a class with its module; for anything else, its text."""
    return f"{kind.__module__}.{kind.__qualname__}" if isinstance(kind, type) else str(kind)
