"""Annotations and specs as plain data, and back."""

from __future__ import annotations

from typing import Any, cast

from quantfx.passes.errors import FileError
from quantfx.passes.graph.graphs import Site
from quantfx.passes.inputs.value_text import decode, encode
from quantfx.passes.observers.derived import DerivedFrom
from quantfx.passes.observers.fixed import FixedQParams
from quantfx.passes.observers.including import MustInclude
from quantfx.passes.observers.observer_name import NamedObserver, observer_name
from quantfx.passes.quant.annotation import Annotation
from quantfx.passes.quant.spec import CastSpec, Concrete, QuantSpec, SharedSpec, Spec

_MAKERS: dict[str, type[FixedQParams] | type[MustInclude] | type[NamedObserver]] = {
    "fixed": FixedQParams,
    "including": MustInclude,
    "named": NamedObserver,
}


def encode_spec(spec: Spec) -> dict[str, Any]:
    """Return a spec as plain data."""
    if isinstance(spec, SharedSpec):
        return {"same_as": list(spec.site)}
    if isinstance(spec, CastSpec):
        return {"cast": encode(spec.dtype)}
    return {**vars(spec), "dtype": encode(spec.dtype), "observer": _encode_observer(spec.observer)}


def _encode_observer(observer: object) -> Any:
    for name, maker in _MAKERS.items():
        if isinstance(observer, maker):
            return {name: dict(vars(observer))}
    if isinstance(observer, DerivedFrom):
        return {"derived": [list(site) for site in observer.sources]}
    # After conversion no observer is used, so the name of somebody's own is enough to tell of it.
    return observer if isinstance(observer, str) else {"named": {"name": observer_name(observer)}}


def _decode_observer(data: Any) -> Any:
    if not isinstance(data, dict):
        return data
    ((name, fields),) = cast(dict[str, Any], data).items()
    if name == "derived":  # its rule has been used, and is code
        return DerivedFrom(tuple(Site(*site) for site in fields))
    return _MAKERS[name](**fields)


def decode_spec(data: dict[str, Any]) -> Spec:
    """Return the spec that ``data`` describes.

    Raises:
        SpecError: the spec contradicts itself.
    """
    if "same_as" in data:
        return SharedSpec(Site(*data["same_as"]))
    if "cast" in data:
        return CastSpec(decode(data["cast"], {}))
    observer = _decode_observer(data["observer"])
    made: dict[str, Any] = {"dtype": decode(data["dtype"], {}), "observer": observer}
    return QuantSpec(**(data | made))


def encode_annotation(annotation: Annotation) -> dict[str, Any]:
    """Return an annotation as plain data, without fields that have their default."""
    fields = dict(vars(annotation))
    fields["inputs"] = [[slot, encode_spec(spec)] for slot, spec in annotation.inputs]
    fields["packs"] = [[role, encode_spec(spec)] for role, spec in annotation.packs]
    fields["shares"] = [[slot, list(site)] for slot, site in annotation.shares]
    fields["groups"] = [list(each) for each in annotation.groups]
    if annotation.output is not None:
        fields["output"] = encode_spec(annotation.output)
    return fields


def decode_annotation(data: dict[str, Any]) -> Annotation:
    """Return the annotation that ``data`` describes.

    Raises:
        FileError: a field is missing or unknown.
    """
    fields = dict(data)
    fields["inputs"] = tuple((slot, decode_spec(spec)) for slot, spec in data["inputs"])
    fields["packs"] = tuple((role, _concrete(spec)) for role, spec in data["packs"])
    fields["shares"] = tuple((slot, Site(*site)) for slot, site in data["shares"])
    fields["groups"] = tuple((slot, name) for slot, name in data["groups"])
    output = data["output"]
    fields["output"] = None if output is None else decode_spec(output)
    try:
        return Annotation(**fields)
    except TypeError as error:
        raise FileError(f"an annotation of another form: {error}", rule="damaged-file") from None


def _concrete(data: dict[str, Any]) -> Concrete:
    return cast(Concrete, decode_spec(data))
