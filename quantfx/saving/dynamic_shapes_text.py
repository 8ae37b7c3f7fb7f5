"""Dynamic shapes of ``torch.export`` as plain data, and back.

``{"x": {0: Dim("batch", max=64), 1: None}}``, sums and products of dims, ``Dim.AUTO`` and its kin,
a ``ShapesCollection``: decoded shapes mean the same to the exporter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch.export import AdditionalInputs, Dim, ShapesCollection
from torch.fx import GraphModule

from quantfx.passes.errors import FileError
from quantfx.passes.inputs.example import ExampleInputs

# torch has no public class for Dim.AUTO and for sums and products of dims.
_HINTS: dict[str, Any] = {"AUTO": Dim.AUTO, "DYNAMIC": Dim.DYNAMIC, "STATIC": Dim.STATIC}
_HINT = type(Dim.AUTO)
_DERIVED = type(Dim("derived", min=1) + 1)


def encode_shapes(module: GraphModule, inputs: ExampleInputs) -> Any:
    """Return dynamic shapes as plain data.

    Args:
        module: The model that takes the inputs.
        inputs: Inputs with their dynamic shapes.

    Raises:
        FileError: they hold something that files cannot store.
    """
    shapes = inputs.dynamic_shapes
    if isinstance(shapes, (ShapesCollection, AdditionalInputs)):
        collected: Any = shapes  # its method has no types
        shapes = collected.dynamic_shapes(module, inputs.args, inputs.kwargs)
    return _encode(shapes)


def _encode(shape: Any) -> Any:
    if shape is None or type(shape) is int:
        return shape
    if isinstance(shape, (tuple, list)):
        items = [_encode(item) for item in cast(list[Any], shape)]
        return {"tuple" if isinstance(shape, tuple) else "list": items}
    if isinstance(shape, Mapping):
        pairs = shape.items()
        return {"dict": [[_key(key), _encode(item)] for key, item in pairs]}
    if isinstance(shape, _HINT):
        hint: Any = shape
        return {"hint": hint.type.name, "min": hint.min, "max": hint.max}
    if isinstance(shape, _DERIVED):
        return _encode_derived(shape)
    if isinstance(shape, Dim):
        return _encode_dim(shape)
    message = f"dynamic_shapes holds a {type(shape).__name__}, which has no form in files"
    fix = "use Dim, Dim.AUTO, Dim.DYNAMIC, Dim.STATIC, int or None in dicts, tuples and lists"
    raise FileError(message, rule="no-text-form", site="dynamic_shapes", fix=fix)


def _key(key: object) -> int | str:
    if type(key) in (int, str):
        return cast(int | str, key)
    message = f"dynamic_shapes has the key {key!r}, and files hold names and numbers"
    raise FileError(message, rule="no-text-form", site="dynamic_shapes")


def _encode_dim(dim: Any) -> dict[str, Any]:
    # An unbounded dim has an infinity of sympy's for its maximum.
    largest = dim.max if isinstance(dim.max, int) else None
    return {"dim": dim.__name__, "min": int(dim.min), "max": largest}


def _encode_derived(dim: Any) -> dict[str, Any]:
    """Encode ``a * root + b``, the only form that torch allows; it keeps it as a function."""
    offset = dim.fn(0)
    return {"root": _encode_dim(dim.root), "times": dim.fn(1) - offset, "plus": offset}


def decode_shapes(data: Any, dims: dict[str, Dim] | None = None) -> Any:
    """Return the dynamic shapes that ``data`` describes.

    Args:
        data: From ``encode_shapes``.
        dims: Dims made so far, by name: one name is one dim.
    """
    dims = {} if dims is None else dims
    if not isinstance(data, dict):
        return data
    table = cast(dict[str, Any], data)
    if "tuple" in table:
        return tuple(decode_shapes(item, dims) for item in table["tuple"])
    if "list" in table:
        return [decode_shapes(item, dims) for item in table["list"]]
    if "dict" in table:
        return {key: decode_shapes(item, dims) for key, item in table["dict"]}
    if "hint" in table:
        hint = _HINTS[table["hint"]]
        bounds = table["min"], table["max"]
        return hint if bounds == (None, None) else hint(min=bounds[0], max=bounds[1])
    if "root" in table:
        scaled = _dim(table["root"], dims)
        if table["times"] != 1:
            scaled = scaled * table["times"]
        return scaled + table["plus"] if table["plus"] else scaled
    return _dim(table, dims)


def _dim(table: dict[str, Any], dims: dict[str, Dim]) -> Dim:
    name: str = table["dim"]
    if name not in dims:
        dims[name] = Dim(name, min=table["min"], max=table["max"])
    return dims[name]
