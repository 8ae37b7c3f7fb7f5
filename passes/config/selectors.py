"""Selectors of a config's rules: they select calls of a graph, or tensors that calls read.

Selectors are frozen values; each is one predicate over `CallSite` values.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import ClassVar

from torch.fx import GraphModule, Node

from quantfx.passes.graph.graphs import Site, all_graphs
from quantfx.passes.graph.immutable import Immutable
from quantfx.passes.graph.scopes import module_stack, module_types
from quantfx.patterns.schema import argument_value, arguments, is_operator_call, overload
from quantfx.patterns.template import Op

_GLOB = re.compile(r"[*?[]")


@dataclass(frozen=True)
class CallSite:
    """One operator call, as selectors see it.

    Attributes:
        graph: Path of its graph, "" for the top one.
        node: The node.
        ops: Its overload, then the vocabulary's words for it.
    """

    graph: str
    node: Node
    ops: tuple[str, ...]

    @property
    def name(self) -> str:
        """Node name, after the path of a nested graph: ``true_graph_0/conv2d``."""
        return str(Site(self.graph, self.node.name))

    @cached_property
    def modules(self) -> frozenset[str]:
        """Paths of every module around the call, including modules never called themselves."""
        found: set[str] = set()
        for path, _ in module_stack(self.node):
            parts = path.split(".") if path else []
            found.update(".".join(parts[:end]) for end in range(1, len(parts) + 1))
        return frozenset(found)

    @cached_property
    def types(self) -> frozenset[str]:
        """Qualified and short class names of the modules around the call."""
        qualified = module_types(self.node)
        return frozenset([*qualified, *(name.rpartition(".")[2] for name in qualified)])

    def tensors(self) -> Iterator[str]:
        """Yield the sites that the call reads: ``conv2d_3.input``, ``cat.tensors.1``."""
        for argument in arguments(overload(self.node)):
            value = argument_value(self.node, argument)
            if isinstance(value, Node):
                yield f"{self.name}.{argument}"
            elif isinstance(value, (list, tuple)):
                for index, item in enumerate(value):
                    if isinstance(item, Node):
                        yield f"{self.name}.{argument}.{index}"


def call_sites(module: GraphModule, vocabulary: Mapping[str, Op]) -> list[CallSite]:
    """Return every operator call in all graphs of ``module``."""
    words = words_of(vocabulary)
    return [
        call_site(path, node, words)
        for path, graph_module in all_graphs(module)
        for node in graph_module.graph.nodes
        if is_operator_call(node)
    ]


def words_of(vocabulary: Mapping[str, Op]) -> dict[object, tuple[str, ...]]:
    """Return the words of the vocabulary for each overload."""
    words: dict[object, tuple[str, ...]] = {}
    for op in vocabulary.values():
        for target in op.targets:
            words[target] = (*words.get(target, ()), op.name)
    return words


def call_site(path: str, node: Node, words: Mapping[object, tuple[str, ...]]) -> CallSite:
    """Return how selectors see ``node``."""
    return CallSite(path, node, (str(node.target), *words.get(node.target, ())))


@dataclass(frozen=True)
class Selector(Immutable, ABC):
    """Base of all selectors.

    Attributes:
        kind: The word for the selector in files and messages.
        ranks: How specific it is as a pattern, and as an exact name.
    """

    kind: ClassVar[str]
    ranks: ClassVar[tuple[int, int]]

    @property
    def is_glob(self) -> bool:
        """Whether it is a pattern of names, not one exact name."""
        return False

    @property
    def rank(self) -> int:
        """How specific the selector is: rules of a higher rank override rules of a lower rank."""
        pattern, exact = self.ranks
        return pattern if self.is_glob else exact

    @abstractmethod
    def selects(self, call: CallSite) -> bool:
        """Whether the selector is about ``call``, or about a tensor that ``call`` reads."""


class Everything(Selector):
    """The whole model: ``all``."""

    kind = "all"
    ranks = (0, 0)  # every other selector is more specific

    def selects(self, call: CallSite) -> bool:
        """Always."""
        return True

    def __str__(self) -> str:
        return "all"


@dataclass(frozen=True)
class Named(Selector):
    """Base of the selectors that consist of one text.

    Attributes:
        name: What is selected; see the subclass.
    """

    name: str

    @abstractmethod
    def names(self, call: CallSite) -> Iterator[str]:
        """Yield the names by which ``call`` could be selected."""

    def selects(self, call: CallSite) -> bool:
        """Whether one of the call's names is this one."""
        return self.name in self.names(call)

    def __str__(self) -> str:
        return f"{self.kind}={self.name!r}"


class Globbed(Named):
    """Base of the selectors whose name may hold ``*``, ``?`` and ``[...]``; they match dots too."""

    @property
    def is_glob(self) -> bool:
        """Whether the name is a pattern, not one exact name."""
        return _GLOB.search(self.name) is not None

    def selects(self, call: CallSite) -> bool:
        """Whether the name or pattern fits one of the call's names."""
        if not self.is_glob:
            return super().selects(call)
        return any(fnmatchcase(name, self.name) for name in self.names(call))


class OpSelector(Named):
    """Calls of an operator: a word of the vocabulary (``conv2d``) or an overload."""

    kind = "op"
    ranks = (1, 1)  # below any module name

    def names(self, call: CallSite) -> Iterator[str]:
        """Yield the overload and the vocabulary's words for it."""
        yield from call.ops


class TypeSelector(Named):
    """Everything inside modules of a class: ``Linear`` or ``torch.nn.modules.linear.Linear``."""

    kind = "type"
    ranks = (1, 1)  # below any module name

    def names(self, call: CallSite) -> Iterator[str]:
        """Yield the classes around the call, by both names."""
        yield from call.types


class ModuleSelector(Globbed):
    """Everything inside a module: its dotted path, or a pattern for such paths."""

    kind = "module"
    ranks = (2, 3)  # above classes of modules

    def names(self, call: CallSite) -> Iterator[str]:
        """Yield the path of every module around the call."""
        yield from call.modules


class CallSelector(Named):
    """One call: the name of its node in the captured graph, ``conv2d_3``."""

    kind = "call"
    ranks = (5, 5)  # above patterns of tensors, below one tensor

    def names(self, call: CallSite) -> Iterator[str]:
        """Yield the name of the node."""
        yield call.name


class TensorSelector(Globbed):
    """A tensor that a call reads: ``conv2d_3.input``, or a pattern such as ``linear*.weight``."""

    kind = "tensor"
    ranks = (4, 6)  # above everything else, if exact

    def names(self, call: CallSite) -> Iterator[str]:
        """Yield the sites that the call reads."""
        yield from call.tensors()

    def selects_tensor(self, site: str) -> bool:
        """Whether the selector is about the tensor at ``site``."""
        return fnmatchcase(site, self.name) if self.is_glob else site == self.name


@dataclass(frozen=True)
class Where(Selector):
    """Calls for which a function of the node is true; it cannot be written to a file."""

    kind = "where"
    ranks = (5, 5)  # as of a call
    function: Callable[[Node], bool]

    def selects(self, call: CallSite) -> bool:
        """Whether the function says so."""
        return bool(self.function(call.node))

    def __str__(self) -> str:
        return f"where={getattr(self.function, '__qualname__', self.function)}"


NAMED: dict[str, type[Named]] = {
    selector.kind: selector
    for selector in (ModuleSelector, TypeSelector, OpSelector, CallSelector, TensorSelector)
}
