"""Find the names that a pass removes from a module, and what replaces them, by comparison."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch.fx import GraphModule, Node

from quantfx.passes.graph.editor import PROVENANCE_KEY, STAND_IN_KEY
from quantfx.passes.graph.graphs import Site, all_graphs
from quantfx.passes.graph.operator_name import operator_name
from quantfx.passes.graph.scopes import module_stack
from quantfx.passes.graph.source_line import SourceLine, source_line
from quantfx.passes.quant.qdq import finds_range, has_qparams


@dataclass(frozen=True)
class Vanished:
    """A node that a pass removed.

    Attributes:
        graph: Path of its graph, "" for the top one.
        node: Its name.
        kind: ``operator`` or ``constant``.
        op: The operator, or the name under which the constant was stored.
        module: Path of the user's module that the node comes from.
        module_class: Class of that module.
        became: Site of the node that its readers read now, or that contains it now; empty if none.
        made_by: Pass that had made it; empty for a node of the exported graph.
        code: Line of the user's code, if known; files do not hold it.
    """

    graph: str
    node: str
    kind: Literal["operator", "constant"]
    op: str
    module: str
    module_class: str
    became: str
    made_by: str = ""
    code: SourceLine | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Snapshot:
    """The nodes of a module at one time.

    Attributes:
        sites: Node -> its site.
        readers: Node -> its users; the last users if it has none now.
    """

    sites: Mapping[Node, Site] = field(default_factory=dict[Node, Site])
    readers: Mapping[Node, tuple[Node, ...]] = field(default_factory=dict[Node, tuple[Node, ...]])

    def next(self, module: GraphModule) -> Snapshot:
        """Return the snapshot of ``module``, the same module at a later time."""
        sites: dict[Node, Site] = {}
        readers: dict[Node, tuple[Node, ...]] = {}
        for path, graph_module in all_graphs(module):
            for node in graph_module.graph.nodes:
                sites[node] = Site(path, node.name)
                readers[node] = tuple(node.users) or self.readers.get(node, ())
        return Snapshot(sites, readers)

    def vanished(self, later: Snapshot) -> Iterator[Vanished]:
        """Yield the nodes that are missing in ``later``, in graph order."""
        for node, site in self.sites.items():
            if node not in later.sites and _is_told(node):
                path, kind = (module_stack(node) or [("", "")])[-1]
                stored = node.op == "get_attr"
                yield Vanished(
                    site.graph,
                    site.node,
                    kind="constant" if stored else "operator",
                    op=str(node.target) if stored else operator_name(node),
                    module=path,
                    module_class=kind,
                    became=self._became(node, later),
                    made_by=str(node.meta.get(PROVENANCE_KEY, "")),
                    code=source_line(node),
                )

    def _became(self, node: Node, later: Snapshot) -> str:
        """Follow the node that took over the readers, or the first reader that vanished too."""
        seen = {node}
        while node not in later.sites:
            stand_in = node.meta.get(STAND_IN_KEY)
            gone = (each for each in self.readers.get(node, ()) if each not in later.sites)
            following = stand_in if isinstance(stand_in, Node) else next(gone, None)
            if following is None or following in seen:
                return ""
            seen.add(following)
            node = following
        return str(later.sites[node])


def _is_told(node: Node) -> bool:
    """Whether a user may ask for ``node`` by name: not for an observer or a q/dq of quantfx."""
    if node.op not in ("call_function", "get_attr"):
        return False
    return not (PROVENANCE_KEY in node.meta and (has_qparams(node) or finds_range(node)))
