"""The template model: a small operator graph with named roles, as plain immutable values."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from torch._ops import OpOverload

from quantfx.patterns.quant import Quant

Reach = Literal["kernel", "loop", "fused", "layout", "reference"]
When = Literal["always", "inputs_quantized"]
Mode = Literal["static", "dynamic", "fp16", "weight-only", "weight-only-4bit", "static-fp16"]

MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True)
class Op:
    """One operation, spelled by one or more operator overloads.

    Attributes:
        name: The vocabulary's word for it.
        targets: Overloads that mean the same and have the arguments that templates name.
        commutes: Two argument names that may be swapped.
        where: Required argument values; with others, the overload means something else.
    """

    name: str
    targets: tuple[OpOverload[..., Any], ...]
    commutes: tuple[str, str] | None = None
    where: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class Role:
    """A tensor from outside the template, bound by name."""

    name: str
    optional: bool = False
    many: bool = False

    def __str__(self) -> str:
        return f"${self.name}{'?' if self.optional else ''}{'*' if self.many else ''}"


@dataclass(frozen=True)
class Ref:
    """The result of another node of the same template."""

    node: str

    def __str__(self) -> str:
        return self.node


@dataclass(frozen=True)
class Constant:
    """A literal that the call must pass for an argument."""

    value: Any

    def __str__(self) -> str:
        return repr(self.value)


Binding: TypeAlias = Role | Ref | Constant


@dataclass(frozen=True)
class PatternNode:
    """One operator of a template; ``optional`` nodes may be absent from a match."""

    name: str
    ops: tuple[Op, ...]
    arguments: tuple[tuple[str, Binding], ...]
    optional: bool = False

    @property
    def targets(self) -> frozenset[OpOverload[..., Any]]:
        """Every overload that this node may call."""
        return frozenset(target for op in self.ops for target in op.targets)

    def __str__(self) -> str:
        ops = "|".join(op.name for op in self.ops)
        arguments = ", ".join(f"{name}={binding}" for name, binding in self.arguments)
        return f"{self.name}{'?' if self.optional else ''} = {ops}({arguments})"


@dataclass(frozen=True)
class Check:
    """A named predicate over the values of a match, e.g. ``same_shape(conv, extra)``."""

    name: str
    arguments: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name}({', '.join(self.arguments)})"


@dataclass(frozen=True)
class Template:
    """A subgraph to find, which of its edges are quantized, and how it is lowered.

    Attributes:
        name: Snake case, operators in data order.
        group: The annotate or fold pass that uses it.
        nodes: In data order; the first is the anchor from which matching starts.
        quant: Role (or ``out``) -> how it is quantized.
        checks: Predicates over values; structure belongs to ``nodes``.
        when: ``always``, or ``inputs_quantized`` for operators that only pass int8 on.
        reach: ``kernel`` (a named int8 kernel), ``loop`` (plain operators on integers, of which a
            compiler makes a loop), ``fused`` (dq-op-q in one generated loop), ``layout`` (int8
            pass-through) or ``reference`` (no kernel: rounded, then computed in float).
        kernel: What ``reach`` means; empty unless ``reach`` is ``kernel`` or ``loop``.
        mode: The way of quantizing it belongs to; a config decides which one an anchor gets.
        also: Modes of the config in which it matches as well, for want of a way of their own.
        on_request: Match only where a rule of the config, not the default, selects the mode.
        becomes: Template whose matches a pass leaves in place of this one's; empty for none.
        packs: Role -> spec name of each weight that the kernel quantizes itself. The graph has no
            quantize for it; its float values stay there until lowering.
    """

    name: str
    group: str
    nodes: tuple[PatternNode, ...]
    _: KW_ONLY
    quant: Mapping[str, Quant] = field(default_factory=dict[str, Quant], hash=False)
    checks: tuple[Check, ...] = ()
    when: When = "always"
    reach: Reach = "kernel"
    kernel: str = ""
    mode: Mode = "static"
    also: tuple[Mode, ...] = ()
    on_request: bool = False
    becomes: str = ""
    packs: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)

    @property
    def anchor(self) -> PatternNode:
        """The node that matching starts from."""
        return self.nodes[0]

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The modes of the config in which it matches."""
        return (self.mode, *self.also)

    @property
    def roles(self) -> tuple[Role, ...]:
        """Every role, in order of first use."""
        found = {b.name: b for n in self.nodes for _, b in n.arguments if isinstance(b, Role)}
        return tuple(found.values())

    @property
    def targets(self) -> frozenset[OpOverload[..., Any]]:
        """Every overload that some node of the template may call."""
        return frozenset[OpOverload[..., Any]]().union(*(node.targets for node in self.nodes))

    @property
    def specs(self) -> Mapping[str, str]:
        """Role (or ``out``) -> spec name, for everything quantized or packed with its own spec."""
        return {role: q.spec for role, q in self.quant.items() if not q.is_same} | dict(self.packs)

    def quantized_arguments(self) -> Iterator[QuantizedArgument]:
        """Yield every argument by which a call may read a quantized or packed tensor."""
        specs = self.specs
        for node in self.nodes:
            for argument, binding in node.arguments:
                if isinstance(binding, Role) and binding.name in specs:
                    for op in node.ops:
                        either = op.commutes if op.commutes and argument in op.commutes else None
                        for target, slot in itertools.product(op.targets, either or (argument,)):
                            yield QuantizedArgument(self, node, target, slot, binding.name)

    def is_weight(self, role: str) -> bool:
        """Whether ``role`` must be a stored tensor; any other quantized role is an activation."""
        return Check("constant", (role,)) in self.checks

    def variants(self) -> Iterator[Variant]:
        """Yield the template with its optional nodes present and absent, largest first."""
        optional = [node.name for node in self.nodes if node.optional]
        for dropped in sorted(_subsets(optional), key=len):
            yield Variant(self, _drop_nodes(self.nodes, dropped))

    def __str__(self) -> str:
        nodes = "; ".join(str(node) for node in self.nodes)
        checks = "".join(f" if {check}" for check in self.checks)
        return f"{self.name}: {nodes}{checks}"


class QuantizedArgument(NamedTuple):
    """An argument of an operator that a template quantizes or lets its kernel pack.

    Attributes:
        template: The template.
        node: The template's node that calls the operator.
        target: The operator.
        slot: Name of the argument.
        role: The template's role for the argument.
    """

    template: Template
    node: PatternNode
    target: OpOverload[..., Any]
    slot: str
    role: str


@dataclass(frozen=True)
class Variant:
    """One template with a fixed choice of its optional nodes."""

    template: Template
    nodes: tuple[PatternNode, ...]

    @property
    def label(self) -> str:
        """The template's name followed by the optional nodes that are present."""
        present = [node.name for node in self.nodes if node.optional]
        return "_".join([self.template.name, *present])

    @cached_property
    def output(self) -> PatternNode:
        """The one node whose result leaves the match."""
        consumed = {b.node for n in self.nodes for _, b in n.arguments if isinstance(b, Ref)}
        return next(node for node in self.nodes if node.name not in consumed)


def _subsets(names: list[str]) -> list[tuple[str, ...]]:
    subsets: list[tuple[str, ...]] = [()]
    for name in names:
        subsets += [(*subset, name) for subset in subsets]
    return subsets


def _drop_nodes(
    nodes: tuple[PatternNode, ...], dropped: tuple[str, ...]
) -> tuple[PatternNode, ...]:
    """Drop optional nodes; readers of a dropped node now read that node's input."""
    forward = {
        node.name: next(b for _, b in node.arguments if isinstance(b, Ref))
        for node in nodes
        if node.name in dropped
    }

    def redirect(binding: Binding) -> Binding:
        while isinstance(binding, Ref) and binding.node in forward:
            binding = forward[binding.node]
        return binding

    return tuple(
        PatternNode(
            node.name,
            node.ops,
            tuple((name, redirect(binding)) for name, binding in node.arguments),
            node.optional,
        )
        for node in nodes
        if node.name not in dropped
    )
