"""Write calls that a template matches, or misses by one rule, from the template alone."""

from __future__ import annotations

from dataclasses import dataclass

from quantfx.passes.quant.spec import LEAST_GROUP
from quantfx.patterns.schema import arguments
from quantfx.patterns.template import Constant, Op, PatternNode, Ref, Role, Template, Variant
from quantfx.tools.fuzz.draft import Draft
from quantfx.tools.fuzz.operators import OPERATORS, Texts


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


def is_writable(template: Template) -> bool:
    """Whether every operator of ``template`` can be written here."""
    return all(op.name in OPERATORS for node in template.nodes for op in node.ops)


def near_misses(template: Template) -> list[str]:
    """Return the rules of ``template`` that can be broken one at a time."""
    found = ["rank"] if OPERATORS[template.anchor.ops[0].name].odd_ranks else []
    for check in template.checks:
        if check.name in ("constant", "float32", "same_shape", "distinct", "dies_here"):
            found.append(check.name)
    for node in template.nodes:
        if any(isinstance(binding, Ref) for _, binding in node.arguments):
            found += ["second reader", "between"]
        if any(op.where for op in node.ops):
            found.append("literal")
    return sorted(set(found))


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
    kind = template.anchor.ops[0].name if len(template.anchor.ops) == 1 else planting.kind
    least = f"{template.name}*" if len(template.nodes) > len(optional) + 1 else ""
    if optional and len(variant.nodes) == len(template.nodes):
        least = planting.label
    return Planted(template.name, planting.label, kind, miss, least, result)


class _Planting:
    """Writes the nodes of a variant in order."""

    def __init__(self, draft: Draft, variant: Variant, miss: str) -> None:
        self._draft = draft
        self._variant = variant
        self._miss = miss
        self._names: dict[str, str] = {}
        self._readers: list[str] = []
        self.kind = ""
        self.label = variant.label

    def write(self) -> str | None:
        draft, nodes = self._draft, self._variant.nodes
        anchor = draft.choose.choice(nodes[0].ops)
        self.kind = anchor.name
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
        if self._miss == "float32":
            result = draft.say(f"{result}.float()", pooled=False) or result
        draft.pool.append(result)
        for reader in self._readers:  # after the match
            if draft.say(f"{reader} * 0.5") is None:
                return None
        return result

    def _input(self, op: Op) -> str | None:
        operator = OPERATORS[op.name]
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
        texts = dict(OPERATORS[op.name].write(draft, draft.value(source)))
        others = iter([source])
        for argument, binding in bound.items():
            if isinstance(binding, Role) and binding.name in ("w", "b"):
                if binding.name == "w" and self._miss == "constant":
                    factor = f"{x}.mean().sigmoid()"
                    texts[argument] = f"({texts[argument]} * {factor})"
                continue
            if isinstance(binding, Constant):
                texts[argument] = repr(binding.value)
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
        return draft.say(f"torch.ops.{target}({given})", pooled=False)


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
