"""Checks of a template beyond its form: its graph, and the names that it uses."""

from __future__ import annotations

from collections.abc import Mapping

from quantfx.patterns.checks import PREDICATES
from quantfx.patterns.key_path import KeyPath
from quantfx.patterns.quant import Quant, parse_quant
from quantfx.patterns.template import Check, Op, PatternNode, Ref, Template


def require_graph(nodes: tuple[PatternNode, ...], where: KeyPath) -> None:
    """Refuse cycles, unconnected nodes, and more than one output."""
    reads = {node.name: {b.node for _, b in node.arguments if isinstance(b, Ref)} for node in nodes}
    waiting = dict(reads)
    while waiting:
        ready = [name for name, needed in waiting.items() if not needed & waiting.keys()]
        if not ready:
            raise where.error(f"nodes {sorted(waiting)} form a cycle", rule="node-cycle")
        for name in ready:
            del waiting[name]
    consumed = set[str]().union(*reads.values())
    outputs = [name for name in reads if name not in consumed]
    if len(outputs) != 1:
        raise where.error(
            f"exactly one node may be left unread, but {outputs} are", rule="one-result"
        )
    reached = {outputs[0]}
    while grown := set[str]().union(*(reads[name] for name in reached)) - reached:
        reached |= grown
    if reached != reads.keys():
        message = f"nodes {sorted(reads.keys() - reached)} do not lead to {outputs[0]}"
        raise where.error(message, rule="dead-node")


def require_names(template: Template, ops: Mapping[str, Op], where: KeyPath) -> None:
    """Refuse ``quant`` and ``check`` entries that name missing roles or nodes."""
    for key, quant in template.quant.items():
        _require_quant(template, key, quant, where)
    for role, spec in template.packs.items():
        _require_pack(template, role, spec, where)
    for check in template.checks:
        _require_check(template, check, ops, where)
    if template.when == "inputs_quantized" and len(template.nodes) > 1:
        raise where.error("when = 'inputs_quantized' is for templates of one node", rule="one-node")


def _require_quant(template: Template, key: str, quant: Quant, where: KeyPath) -> None:
    roles = [role.name for role in template.roles]
    told = f"quant gives '{key}' {quant}"
    for name in (key, *quant.roles):
        if name not in roles and name != "out":
            raise where.at("quant").unknown("role", name, roles)
    if quant.is_same and key != "out":
        raise where.error(f"{told}: only 'out' is same(role)", rule="same-is-out")
    if key == "out" and quant.roles and not quant.is_same:
        raise where.error(f"{told}: it is a spec of its own, or same(role)", rule="out-spec")
    for role in quant.roles:
        if role not in template.quant or role == "out":
            raise where.error(f"{told}: ${role} is not quantized itself", rule="quantized-role")
        if not quant.is_same and template.quant[role].roles:
            message = f"{told}: the qparams of ${role} are derived themselves"
            raise where.error(message, rule="derived-twice")


def _require_pack(template: Template, role: str, spec: str, where: KeyPath) -> None:
    roles = [each.name for each in template.roles]
    quant = parse_quant(spec)
    if role not in roles:
        raise where.at("packs").unknown("role", role, roles)
    if quant is None or quant.is_same or quant.roles:
        raise where.error(f"packs gives '{role}' {spec}: not the name of a spec", rule="spec-name")
    if role in template.quant or not template.is_weight(role):
        message = f"packs names '{role}', which must be constant({role}) and not in quant"
        raise where.error(message, rule="packed-role")


def _require_check(template: Template, check: Check, ops: Mapping[str, Op], where: KeyPath) -> None:
    predicate = PREDICATES[check.name]
    inner = [*(role.name for role in template.roles), *(node.name for node in template.nodes)]
    named, others = check.arguments[: predicate.nodes], check.arguments[predicate.nodes :]
    if len(named) < predicate.nodes or (others and not predicate.takes_ops):
        raise where.error(
            f"check {check}: {check.name} takes {predicate.nodes} nodes or roles"
            f"{', then op names' if predicate.takes_ops else ''}",
            rule="template-check",
        )
    for known, given in ((inner, named), (list(ops), others)):
        for name in given:
            if name not in known:
                raise where.unknown("name", name, known, of=f"check {check}")
