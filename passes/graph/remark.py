"""What passes have to say, for the report: one record for each kind of thing it is about."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, cast, get_args

from quantfx.passes.graph.graphs import Site

Kind: TypeAlias = Literal["applied", "missed"]


@dataclass(frozen=True)
class Remark:
    """Something a reader of the report wants to know about one node.

    Attributes:
        kind: ``applied``, or ``missed`` for something that was tried and did not hold.
        graph: Path of the node's graph, "" for the top one.
        node: Node name.
        message: The rule and its reason.
        op: Operator of the node, by which reports group.
    """

    kind: Kind
    graph: str
    node: str
    message: str
    op: str = ""


@dataclass(frozen=True)
class ModelRemark:
    """Why a pass left the whole model alone."""

    reason: str


@dataclass(frozen=True)
class RuleRemark:
    """A rule of the config that selects, decides or changes nothing, and why."""

    rule: str
    reason: str


@dataclass(frozen=True)
class ScaleRemark:
    """A tensor whose scale is not what its values ask for.

    Attributes:
        site: The tensor.
        reason: What is the matter, what becomes of its values, and what to do.
    """

    site: str
    reason: str


@dataclass(frozen=True)
class MergedSite:
    """A planned site whose kernel call was merged with an equal one.

    Attributes:
        graph: Path of the site's graph, "" for the top one.
        node: Node name.
        into: The site whose call computes both.
    """

    graph: str
    node: str
    into: str = ""

    @property
    def site(self) -> Site:
        """The site in its graph."""
        return Site(self.graph, self.node)


@dataclass(frozen=True)
class TriedTemplates:
    """The templates of one group that were tried at a node.

    Attributes:
        graph: Path of the node's graph.
        node: Node name.
        mode: What the config decides for it.
        rule: The rule that says so; empty for the config's default.
        tries: ``(label, first rule that failed)`` of each template, in order; "" if it matched.
    """

    graph: str
    node: str
    mode: str
    rule: str
    tries: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class AskedSpecs:
    """Who asked for the specs of a matched node.

    Attributes:
        graph: Path of the node's graph.
        node: Node name.
        specs: ``(slot, name of the spec, rules that change it)``, "" where none does; the slot is
            "" for the result.
    """

    graph: str
    node: str
    specs: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class SharedGroup:
    """Sites that share qparams.

    Attributes:
        name: The first site of the group.
        members: All sites, in the order of the model.
        links: ``(site, site, why)`` of what ties them, one fewer than members.
    """

    name: str
    members: tuple[str, ...]
    links: tuple[tuple[str, str, str], ...]


AnyRemark: TypeAlias = (
    Remark
    | ModelRemark
    | RuleRemark
    | ScaleRemark
    | MergedSite
    | TriedTemplates
    | AskedSpecs
    | SharedGroup
)
_KINDS: dict[str, type[AnyRemark]] = {kind.__name__: kind for kind in get_args(AnyRemark)}


def encode_remark(remark: AnyRemark) -> dict[str, Any]:
    """Return a remark as plain data."""
    return {"about": type(remark).__name__, **asdict(remark)}


def decode_remark(data: dict[str, Any]) -> AnyRemark:
    """Return the remark that ``encode_remark`` made plain data of."""
    fields = {key: _tuples(value) for key, value in data.items() if key != "about"}
    return _KINDS[data["about"]](**fields)


def _tuples(value: object) -> Any:
    """Return ``value`` with tuples for the lists that JSON has in their place."""
    return tuple(map(_tuples, cast(list[object], value))) if isinstance(value, list) else value
