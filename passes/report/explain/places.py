"""Every site of a q/dq graph (nodes, vanished nodes, modules without nodes), and their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import NamedTuple

from torch.fx import GraphModule, Node

from quantfx.passes.config.recipe import Recipe
from quantfx.passes.graph.editor import PROVENANCE_KEY
from quantfx.passes.graph.graphs import Site, all_graphs
from quantfx.passes.graph.scopes import module_stack
from quantfx.passes.graph.silent_modules import SilentModule, silent_modules
from quantfx.passes.pipeline.vanished import Vanished
from quantfx.passes.quant.annotation import annotation_of
from quantfx.passes.quant.qdq import has_qparams
from quantfx.passes.report.accounts import Account, accounts
from quantfx.passes.report.explain.explanation import Kind
from quantfx.passes.report.explain.trail import Trail
from quantfx.patterns.errors import QuantfxError, did_you_mean

_KINDS: dict[str, Kind] = {"placeholder": "input", "get_attr": "constant", "output": "output"}


@dataclass
class Names:
    """Every name by which a site can be asked for.

    Attributes:
        order: All sites, in the order of answers.
        other_names: Other name, of a parameter or a quantized tensor -> its site.
        modules: Path of a module -> the sites that come from it.
    """

    order: list[str] = field(default_factory=list[str])
    other_names: dict[str, str] = field(default_factory=dict[str, str])
    modules: dict[str, list[str]] = field(default_factory=dict[str, list[str]])

    def add(self, site: str, modules: Iterable[str] = ()) -> None:
        """Add a site that comes from modules, and thus from the modules that contain them."""
        self.order.append(site)
        for path in dict.fromkeys(_with_outer(modules)):
            self.modules.setdefault(path, []).append(site)

    def find(self, name: str) -> list[str]:
        """Return the sites that ``name`` stands for, in the order of answers.

        Raises:
            QuantfxError: the name has no site; names the nearest.
        """
        found = set(self._globbed(name) if _GLOB.search(name) else self._exact(name))
        if not found:
            raise self._unknown(name)
        return [site for site in self.order if site in found]

    def _exact(self, name: str) -> Iterator[str]:
        if name in self.order:
            yield name
        yield from self.modules.get(name, ())
        if name in self.other_names:
            yield self.other_names[name]

    def _globbed(self, pattern: str) -> Iterator[str]:
        yield from (site for site in self.order if fnmatchcase(site, pattern))
        for path, sites in self.modules.items():
            if fnmatchcase(path, pattern):
                yield from sites
        yield from (site for name, site in self.other_names.items() if fnmatchcase(name, pattern))

    def _unknown(self, name: str) -> QuantfxError:
        known = [*self.modules, *self.order, *self.other_names]
        return QuantfxError(
            f"the model has no '{name}'{did_you_mean(name, dict.fromkeys(known), most=3)}",
            rule="unknown-name",
            site=name,
            fix=_FORMS,
        )


def _with_outer(paths: Iterable[str]) -> Iterator[str]:
    """Yield ``a``, ``a.b`` and ``a.b.c`` for ``a.b.c``."""
    for path in paths:
        parts = path.split(".") if path else []
        yield from (".".join(parts[:end]) for end in range(1, len(parts) + 1))


_GLOB = re.compile(r"[*?[]")
_FORMS = (
    "give the path of a module (layer4.2.conv3) or of a parameter (layer4.2.conv3.weight), the "
    "name of a node (conv2d_3, true_graph_0/conv2d), or a pattern of such names (layer4.*)"
)


class Place(NamedTuple):
    """An existing node, with its graph."""

    path: str
    module: GraphModule
    node: Node
    account: Account | None

    @property
    def kind(self) -> Kind:
        """The kind of the node."""
        if self.account is None:
            return _KINDS.get(self.node.op, "operator")
        return "made" if self.account.standing == "made" else "operator"


@dataclass(frozen=True)
class Places:
    """All sites, and their names.

    Attributes:
        nodes: Site -> existing node.
        vanished: Site -> vanished node.
        silent: Path -> module that left no operator.
        names: The names that a user can ask for.
    """

    nodes: dict[str, Place]
    vanished: dict[str, Vanished]
    silent: dict[str, SilentModule]
    names: Names

    @property
    def operators(self) -> frozenset[str]:
        """Sites of the model's operators that exist."""
        return frozenset(site for site, place in self.nodes.items() if place.kind == "operator")


def find_places(module: GraphModule, recipe: Recipe, trail: Trail) -> Places:
    """Return the sites of a q/dq graph.

    Args:
        module: The graph.
        recipe: The recipe that it was quantized with.
        trail: The records of passes.
    """
    nodes = dict(_nodes(module, recipe))
    graphs = {place.path for place in nodes.values()}  # nobody asks for an inlined graph
    lost = {
        site: losses[-1].vanished
        for site, losses in trail.lost.items()
        if site not in nodes and losses[-1].vanished.graph in graphs
    }
    names = Names()
    called: set[str] = set()
    for site, place in nodes.items():
        paths = list(_modules_of(place)) if place.kind == "operator" else []
        called.update(paths)
        names.add(site, paths)
        annotation = annotation_of(place.node)
        for slot, _ in annotation.inputs if annotation is not None else ():
            names.other_names[f"{site}.{slot}"] = site
        if place.node.op == "get_attr":
            names.other_names[str(place.node.target)] = site
    for site, gone in lost.items():
        is_own = gone.kind == "operator" and not gone.made_by
        told = is_own and not _is_spelled_anew(gone, nodes)
        names.add(site, [gone.module] if told else ())
        if gone.kind == "constant":
            names.other_names[gone.op] = site
    silent = {each.path: each for each in silent_modules(module) if each.path not in called}
    for path in silent:
        names.add(path, [path.rpartition(".")[0]])
    return Places(nodes, lost, silent, names)


def _nodes(module: GraphModule, recipe: Recipe) -> Iterator[tuple[str, Place]]:
    known = {each.node: each for each in accounts(module, recipe)}
    for path, graph_module in all_graphs(module):
        for node in graph_module.graph.nodes:
            place = Place(path, graph_module, node, known.get(node))
            yield str(Site(path, node.name)), place


def _modules_of(place: Place) -> Iterator[str]:
    """Yield the paths of the modules an operator was called in, outermost first.

    The exporter notes no modules inside control flow: there, the owner of the weights counts.
    """
    stack = module_stack(place.node)
    if stack or not place.path:
        yield from (path for path, _ in stack)
        return
    for source in place.node.all_input_nodes:
        while has_qparams(source):
            source = source.all_input_nodes[0]
        owner = str(source.target).rpartition(".")[0]
        if source.op == "get_attr" and owner:
            yield owner


def _is_spelled_anew(gone: Vanished, nodes: dict[str, Place]) -> bool:
    """Whether a pass replaced a node by another of the same module: the user sees one node."""
    place = nodes.get(gone.became)
    if place is None or PROVENANCE_KEY not in place.node.meta:
        return False
    stack = module_stack(place.node)
    return bool(stack) and stack[-1][0] == gone.module
