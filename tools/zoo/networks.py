"""The networks of the zoo as data: origin, construction and inputs."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from quantfx.patterns.errors import QuantfxError, unknown_name

NETWORKS = Path(__file__).with_name("networks.toml")

Library = Literal["timm", "transformers", "module"]
Kind = Literal["normal", "image", "tokens", "ones"]
_VALUES = frozenset({"kind", "shape", "below"})
_KEYS: dict[Library, frozenset[str]] = {
    "timm": frozenset({"pixels", "arguments"}),
    "transformers": frozenset({"model", "config", "arguments", "inputs"}),
    "module": frozenset({"model", "arguments", "inputs"}),
}
_PIXELS = 64


class ZooError(QuantfxError):
    """The data of the zoo is ill-formed, or lacks a requested network."""


@dataclass(frozen=True)
class Values:
    """The values of one input.

    Attributes:
        kind: ``normal``: normally distributed; ``image``: patches of such values, with noise;
            ``tokens``: integers; ``ones``: integers too.
        shape: Shape of the tensor.
        below: Upper bound of tokens, exclusive.
    """

    kind: Kind
    shape: tuple[int, ...]
    below: int = 2


@dataclass(frozen=True)
class Network:
    """One network.

    Attributes:
        name: Unique in the zoo.
        library: Its library: timm, transformers, or any importable ``module``.
        model: Name in that library: for ``timm.create_model``, a class of transformers (or
            ``module:class`` in it), or ``module:callable``.
        inputs: Values by name of the argument; timm's only input is positional.
        arguments: Arguments of the constructor, or of transformers' config.
        config: Config class of transformers.
    """

    name: str
    library: Library
    model: str
    inputs: Mapping[str, Values]
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])
    config: str = ""


def load_networks(path: Path = NETWORKS) -> tuple[Network, ...]:
    """Return the networks of a TOML file, in its order.

    Raises:
        ZooError: a key or value is unknown, or missing, or two networks have one name.
    """
    data = tomllib.loads(path.read_text(encoding="utf-8"))
    found = [
        _network(name, _one_of(library, get_args(Library), "library"), table)
        for library, tables in data.items()
        for name, table in tables.items()
    ]
    names = [each.name for each in found]
    if twice := {name for name in names if names.count(name) > 1}:
        message = f"{path.name}: two networks are called {', '.join(sorted(twice))}"
        raise ZooError(message, rule="taken-name", site=min(twice))
    return tuple(found)


def select(networks: Sequence[Network], names: Iterable[str]) -> tuple[Network, ...]:
    """Return the networks of these names, in the order of ``networks``; all if there are none.

    Raises:
        ZooError: there is no network of some name.
    """
    wanted = set(names)
    known = [each.name for each in networks]
    for name in sorted(wanted.difference(known)):
        raise unknown_name(ZooError, "network", name, known, of="the zoo")
    return tuple(each for each in networks if not wanted or each.name in wanted)


def _network(name: str, library: Library, table: Mapping[str, Any]) -> Network:
    for key in table.keys() - _KEYS[library]:
        raise unknown_name(ZooError, "key", key, _KEYS[library], of=f"network '{name}'")
    arguments = table.get("arguments", {})
    if library == "timm":
        pixels = int(table.get("pixels", _PIXELS))
        return Network(
            name, library, name, {"": Values("image", (1, 3, pixels, pixels))}, arguments
        )
    for key in ("model", "inputs", *(("config",) if library == "transformers" else ())):
        if not table.get(key):
            raise ZooError(f"network '{name}' lacks '{key}'", rule="zoo-entry", site=key)
    inputs = {key: _values(name, key, values) for key, values in table["inputs"].items()}
    return Network(name, library, table["model"], inputs, arguments, table.get("config", ""))


def _values(name: str, key: str, table: Mapping[str, Any]) -> Values:
    if unknown := table.keys() - _VALUES:
        raise unknown_name(
            ZooError, "key", min(unknown), _VALUES, of=f"network '{name}', input '{key}'"
        )
    kind: Kind = _one_of(table.get("kind", ""), get_args(Kind), f"network '{name}': input kind")
    return Values(kind, tuple(table["shape"]), table.get("below", 2))


def _one_of(value: str, known: tuple[Any, ...], what: str) -> Any:
    if value not in known:
        raise unknown_name(ZooError, what, value, known)
    return value
