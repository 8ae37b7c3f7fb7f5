"""What passes have to say, for the report: one record for each kind of thing it is about."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

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
    """A planned site whose kernel call was merged with an equal one."""

    graph: str
    node: str

    @property
    def site(self) -> Site:
        """The site in its graph."""
        return Site(self.graph, self.node)


AnyRemark: TypeAlias = Remark | ModelRemark | RuleRemark | ScaleRemark | MergedSite
_KINDS: dict[str, type[AnyRemark]] = {
    kind.__name__: kind for kind in (Remark, ModelRemark, RuleRemark, ScaleRemark, MergedSite)
}


def encode_remark(remark: AnyRemark) -> dict[str, Any]:
    """Return a remark as plain data."""
    return {"about": type(remark).__name__, **asdict(remark)}


def decode_remark(data: dict[str, Any]) -> AnyRemark:
    """Return the remark that ``encode_remark`` made plain data of."""
    fields = {key: value for key, value in data.items() if key != "about"}
    return _KINDS[data["about"]](**fields)
