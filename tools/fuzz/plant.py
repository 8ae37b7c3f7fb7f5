"""Write calls that a template matches, or misses by one rule, from the template alone."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch

from quantfx.passes.quant.spec import LEAST_GROUP
from quantfx.patterns.schema import arguments
from quantfx.patterns.template import (
    Binding,
    Constant,
    Op,
    PatternNode,
    Ref,
    Role,
    Template,
    Variant,
)
from quantfx.tools.fuzz.draft import Draft
from quantfx.tools.fuzz.operators import OPERATORS, Operator, Texts
from quantfx.tools.fuzz.tables_and_recurrent import TABLES_AND_RECURRENT

ALL = OPERATORS | TABLES_AND_RECURRENT


@dataclass(frozen=True)
class Planted:
    """A planted match or near miss.

    Attributes:
        template: Its name.
        label: Label of the variant.
        kind: Name of the anchor's operator.
        miss: The rule that is broken; empty if it matches.
        least: Pattern of labels of which one is planned, whatever reads the result; empty if a
            larger template may take it instead.
        result: Name of the tensor.
    """

    template: str
    label: str
    kind: str
    miss: str
    least: str
    result: str


def is_writable(template: Template, operators: Collection[str] = OPERATORS.keys()) -> bool:
    """Whether every operator of ``template`` is one of ``operators``."""
    return all(op.name in operators for node in template.nodes for op in node.ops)


def near_misses(template: Template) -> list[str]:
    """Return the rules of ``template`` that can be broken one at a time."""
    found = ["rank"] if ALL[template.anchor.ops[0].name].odd_ranks else []
    for check in template.checks:
        if check.name in ("constant", "float32", "same_shape", "distinct", "dies_here"):
            found.append(check.name)
    for node in template.nodes:
        bound = [binding for _, binding in node.arguments]
        if any(isinstance(binding, Ref) for binding in bound):
            found += ["second reader", "between"]
        if any(op.where for op in node.ops) or any(map(_is_flag, bound)):
            found.append("literal")
    return sorted(set(found))


def _roles(variant: Variant, check: str) -> list[str]:
    """Return the roles of a check of one role."""
    return [each.arguments[0] for each in variant.template.checks if each.name == check]


def _is_flag(binding: Binding) -> bool:
    return isinstance(binding, Constant) and isinstance(binding.value, bool)


def plant(draft: Draft, template: Template, miss: str = "") -> Planted | None:
    """Write one variant of ``template`` on tensors of the pool; None if it does not run."""
    variant = draft.choose.choice(list(template.variants()))
    optional = [node for node in template.nodes if node.optional]
    if miss in ("second reader", "between", "literal"):
        variant = next(template.variants())
    planting = _Planting(draft, variant, miss)
    result = planting.write()
    if result is None:
        return None
    least = f"{template.name}*" if len(template.nodes) > len(optional) + 1 else ""
    if optional and len(variant.nodes) == len(template.nodes):
        least = planting.label
    kind = template.becomes or planting.kind
    return Planted(template.name, planting.label, kind, miss, least, result)


class _Planting:
    """Writes the nodes of a variant in order."""

    def __init__(self, draft: Draft, variant: Variant, miss: str) -> None:
        self._draft = draft
        self._variant = variant
        self._miss = miss
        self._names: dict[str, str] = {}
        self._readers: list[str] = []
        self._states: list[str] = []
        stored = _roles(variant, "constant") if miss == "constant" else []
        self._computed = draft.choose.choice(stored) if len(stored) > 1 else "".join(stored)
        self.kind = ""
        self.label = variant.label

    def write(self) -> str | None:
        draft, nodes = self._draft, self._variant.nodes
        anchor = draft.choose.choice(nodes[0].ops)
        x = self._input(anchor)
        if x is None:
            return None
        for node in nodes:
            op = anchor if node is nodes[0] else draft.choose.choice(node.ops)
            name = self._call(node, op, x)
            if name is None:
                return None
            self._names[node.name] = name
            if self._miss in ("between", "second reader") and node is not nodes[-1]:
                between = self._miss == "between"
                other = draft.say(f"{name} * 0.5", pooled=not between)
                if other is None:
                    return None
                if between:
                    self._names[node.name] = other
        result = self._names[nodes[-1].name]
        if self._miss == "float32" and draft.value(result).dtype == torch.float64:
            result = draft.say(f"{result}.float()", pooled=False) or result
        draft.pool += [result, *self._states]
        for reader in self._readers:  # after the match
            if draft.say(f"{reader} * 0.5") is None:
                return None
        return result

    def _input(self, op: Op) -> str | None:
        operator = ALL[op.name]
        if operator.source is not None:
            return operator.source(self._draft)
        ranks = operator.odd_ranks if self._miss == "rank" else operator.ranks
        x = fitting(self._draft, ranks)
        if x is not None and self._variant.template.when == "inputs_quantized":
            x = layer_of(self._draft, x) or x
        if x is not None and self._variant.template.mode == "weight-only-4bit":
            x = self._draft.say(f"{x}.repeat_interleave({LEAST_GROUP}, -1)", pooled=False)
        if x is not None and self._miss == "float32":
            return self._draft.say(f"{x}.double()", pooled=False)
        return x

    def _call(self, node: PatternNode, op: Op, x: str) -> str | None:
        draft = self._draft
        bound = dict(node.arguments)
        first = next((b for b in bound.values() if isinstance(b, Ref)), None)
        source = self._names[first.node] if first else x
        written = ALL[op.name].write(draft, draft.value(source))
        texts = {name: text.replace("{x}", source) for name, text in written.items()}
        others = iter([source])
        for argument, binding in bound.items():
            if isinstance(binding, Role) and argument in texts:
                texts[argument] = self._stored(binding, texts[argument], x)
                continue
            if isinstance(binding, Constant):
                flipped = _is_flag(binding) and self._miss == "literal"
                texts[argument] = repr(not binding.value if flipped else binding.value)
                texts |= {"dropout": "0.0"} if flipped else {}
                continue
            if isinstance(binding, Role) and binding.many:
                texts[argument] = f"[{source}, {sibling(draft, source) or source}]"
                continue
            given = next(others, None)
            if given is None:
                given = self._operand(op, source, x)
                if given is None:
                    return None
            texts[argument] = given
        return self._say(op, texts, source)

    def _stored(self, role: Role, text: str, x: str) -> str:
        """Return the text of a stored tensor, or of what it is in a near miss."""
        if role.name == self._computed:
            is_float = self._draft.value(x).is_floating_point()
            factor = f"{x}{'' if is_float else '.float()'}.mean().sigmoid()"
            if role.many:
                return f"[each * {factor} for each in {text}]"
            return f"({text} * {factor})"
        is_double = self._miss == "float32" and role.name in _roles(self._variant, "float32")
        return f"{text}.double()" if is_double else text

    def _operand(self, op: Op, source: str, x: str) -> str | None:
        """Return the second operand of a sum or product."""
        draft = self._draft
        if op.name == "matmul":
            return draft.say(f"{source}.transpose(-1, -2)", pooled=False)
        shape = tuple(draft.value(source).shape)
        if self._miss == "same_shape":
            if shape[-1:] in ((), (1,)):
                return None
            return draft.say(f"{source}.abs().mean({len(shape) - 1}, keepdim=True)", pooled=False)
        if self._miss == "distinct":
            return x if draft.value(x).shape == draft.value(source).shape else None
        ways = [f"{each}.abs()" for each in draft.same_shape(source)]
        if source == x or self._miss == "dies_here" or not ways or draft.chance(0.3):
            more = f"{x}.tanh()" if source == x else f"{draft.add_input(shape)}.abs()"
            ways.append(more)
        other = draft.say(draft.choose.choice(ways), pooled=False)
        if self._miss == "dies_here" and other is not None:
            self._readers.append(other)
        return other

    def _say(self, op: Op, texts: Texts, source: str) -> str | None:
        draft = self._draft
        targets = [
            target
            for target in op.targets
            if not str(target).split(".")[1].endswith("_") or draft.owned(source)
        ]
        target = draft.choose.choice(targets)
        draft.overwrites |= source in draft.pool and str(target).split(".")[1].endswith("_")
        if op.commutes and draft.chance(0.5) and not str(target).split(".")[1].endswith("_"):
            first, second = op.commutes
            texts[first], texts[second] = texts[second], texts[first]
        if self._miss == "literal":
            texts |= {name: str(value + 1) for name, value in op.where if isinstance(value, int)}
        known = arguments(target)
        if str(target).endswith(".padding"):
            same = draft.chance(0.5)
            texts["padding"] = repr("same" if same else "valid")
            texts["stride"] = "[1]" if same else texts["stride"]
        given = ", ".join(f"{name}={text}" for name, text in texts.items() if name in known)
        self.kind = self.kind or str(target).split(".")[1].removesuffix("_")
        return self._read(ALL[op.name], f"torch.ops.{target}({given})")

    def _read(self, operator: Operator, call: str) -> str | None:
        """Write a call; of several results, return the first and keep the others."""
        if operator.results > 1 and self._draft.chance(0.4):
            names = self._draft.say_all(call, operator.results)
            self._states = names[1:]
            return names[0] if names else None
        first_only = operator.results > 1 or operator.first_only
        return self._draft.say(f"{call}[0]" if first_only else call, pooled=False)


def fitting(draft: Draft, ranks: tuple[int, ...]) -> str | None:
    """Return a float32 tensor with one of ``ranks``, made from another if needed."""
    found = draft.pick(*ranks)
    if found is not None:
        return found
    x = draft.pick()
    if x is None:
        return None
    rank, wanted = draft.value(x).dim(), draft.choose.choice(ranks)
    if wanted > rank:
        return draft.say(x + "".join([".unsqueeze(-1)"] * (wanted - rank)))
    if wanted == rank - 1 and draft.chance(0.5):
        return draft.say(f"{x}[0]")
    if wanted == 1:
        return draft.say(f"{x}.reshape(-1)[:8]")
    return draft.say(f"{x}.flatten({wanted - 1})")


def layer_of(draft: Draft, x: str) -> str | None:
    """Return the result of a layer on ``x``, of the same shape, which templates quantize."""
    value = draft.value(x)
    channels = value.shape[1] if value.dim() > 1 else 0
    made = {3: "Conv1d", 4: "Conv2d", 5: "Conv3d"}.get(value.dim())
    if made:
        layer = draft.layer(f"nn.{made}({channels}, {channels}, 1)")
    else:
        layer = draft.layer(f"nn.Linear({value.shape[-1]}, {value.shape[-1]})")
    return draft.say(f"{layer}({x})")


def sibling(draft: Draft, name: str) -> str | None:
    """Return another tensor of the shape of ``name``, preferably a layer's result."""
    same = draft.same_shape(name)
    return draft.choose.choice(same) if same and draft.chance(0.4) else layer_of(draft, name)
