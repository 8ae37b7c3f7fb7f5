"""The records that passes left, by the names that they concern."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import NamedTuple

from torch.fx import GraphModule

from quantfx.passes.graph.graphs import Site
from quantfx.passes.graph.remark import (
    AnyRemark,
    AskedSpecs,
    Remark,
    ScaleRemark,
    SharedGroup,
    TriedTemplates,
)
from quantfx.passes.pipeline.record import records_of
from quantfx.passes.pipeline.vanished import Vanished

# Labels of observers: a node, or ``module (node)``, with the slot that they observe.
_LABEL = re.compile(r"^.* \((\w+)\)(\.[\w.]+)?$")


class Told(NamedTuple):
    """A remark, with the time and the pass that made it."""

    when: int
    by: str
    remark: Remark


class Loss(NamedTuple):
    """A name that vanished, with the time and the pass that removed it."""

    when: int
    by: str
    vanished: Vanished


class Trail:
    """The records of a q/dq graph by site.

    Args:
        module: The graph.

    Attributes:
        passes: The names of all passes that ran.
        tried: Site -> pass and the templates it tried there.
        asked: Site of a node -> slot -> name of the spec, and the rules that change it.
        groups: First member -> sharing group.
        told: Site -> remarks, in order.
        scales: Slot of a node, or path of a weight -> why its scale does not fit.
        lost: Site -> when it vanished; more than once if another node got the name.
        absorbed: Site -> the names that it replaced.
    """

    def __init__(self, module: GraphModule) -> None:
        records = records_of(module)
        self.passes = [record.name for record in records]
        self.tried: dict[str, list[tuple[str, TriedTemplates]]] = defaultdict(list)
        self.asked: dict[str, dict[str, tuple[str, str]]] = defaultdict(dict)
        self.groups: dict[str, SharedGroup] = {}
        self.told: dict[str, list[Told]] = defaultdict(list)
        self.scales: dict[str, str] = {}
        self.lost: dict[str, list[Loss]] = defaultdict(list)
        self.absorbed: dict[str, list[Loss]] = defaultdict(list)
        for when, record in enumerate(records):
            for each in record.vanished:
                loss = Loss(when, record.name, each)
                self.lost[str(Site(each.graph, each.node))].append(loss)
                if each.became:
                    self.absorbed[each.became].append(loss)
            for remark in record.remarks:
                self._add(when, record.name, remark)

    def _add(self, when: int, by: str, remark: AnyRemark) -> None:
        if isinstance(remark, SharedGroup):
            self.groups[remark.name] = remark
        elif isinstance(remark, ScaleRemark):
            self.scales[_LABEL.sub(r"\1\2", remark.site)] = remark.reason
        elif isinstance(remark, (Remark, TriedTemplates, AskedSpecs)):
            site = str(Site(remark.graph, remark.node))
            if isinstance(remark, Remark):
                self.told[site].append(Told(when, by, remark))
            elif isinstance(remark, TriedTemplates):
                self.tried[site].append((by, remark))
            else:
                self.asked[site] |= {slot: (name, rule) for slot, name, rule in remark.specs}
