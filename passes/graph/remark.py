"""Remarks of passes for the report: one class for each kind of subject."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, cast, get_args

from quantfx.passes.graph.graphs import Site

Kind: TypeAlias = Literal["applied", "missed"]


@dataclass(frozen=True)
class Remark:
    """A fact about one node for the reader of the report.

    Attributes:
        kind: ``applied``, or ``missed`` for something that was tried and did not apply.
        graph: Path of the node's graph, "" for the top one.
        node: Node name.
        message: The rule and its reason.
        op: Operator of the node; reports group by it.
    """

    kind: Kind
    graph: str
    node: str
    message: str
    op: str = ""


@dataclass(frozen=True)
class ModelRemark:
    """A fact about the whole model, e.g. why a pass left it alone."""

    reason: str


@dataclass(frozen=True)
class RuleRemark:
    """A rule of the config that selects, decides or changes nothing, with the reason."""

    rule: str
    reason: str


@dataclass(frozen=True)
class ScaleRemark:
    """A tensor whose scale does not follow from its values.

    Attributes:
        site: The tensor.
        reason: The problem, its effect on the values, and what to do.
    """

    site: str
    reason: str


@dataclass(frozen=True)
class MergedSite:
    """A planned site whose kernel call was merged with an equal one.

    Attributes:
        graph: Path of the site's graph, "" for the top one.
        node: Node name.
        into: The site whose call computes both sites.
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
        mode: The mode that the config decides for the node.
        rule: The rule that decided; empty for the config's default.
        tries: ``(label, first rule that failed)`` of each template, in order; "" if it matched.
    """

    graph: str
    node: str
    mode: str
    rule: str
    tries: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class AskedSpecs:
    """The specs of a matched node, and the rules that changed them.

    Attributes:
        graph: Path of the node's graph.
        node: Node name.
        specs: ``(slot, name of the spec, rules that change it)``; rules are "" if none does, and
            the slot is "" for the result.
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
        links: ``(site, site, why)`` for each tie between sites, one fewer than members.
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
    """Return the remark that ``encode_remark`` encoded."""
    fields = {key: _tuples(value) for key, value in data.items() if key != "about"}
    return _KINDS[data["about"]](**fields)


def _tuples(value: object) -> Any:
    """Return ``value`` with JSON's lists turned back into tuples."""
    return tuple(map(_tuples, cast(list[object], value))) if isinstance(value, list) else value
