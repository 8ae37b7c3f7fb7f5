"""Read pattern sets from TOML and check them against the running torch.

Every error names the file and the key path, and the nearest valid name where there is one.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, cast, get_args

from torch._ops import OpOverload

from quantfx.patterns.checks import PREDICATES
from quantfx.patterns.errors import PatternError, did_you_mean
from quantfx.patterns.key_path import KeyPath
from quantfx.patterns.pattern_set import PatternSet
from quantfx.patterns.quant import Quant, parse_quant
from quantfx.patterns.schema import arguments, resolve_op
from quantfx.patterns.template import (
    MODES,
    Binding,
    Check,
    Constant,
    Op,
    PatternNode,
    Reach,
    Ref,
    Role,
    Template,
)

SCHEMA = 1
_BUNDLED = Path(__file__).parent / "sets"
_TOP_KEYS = ("schema", "vocabulary", "extends", "without", "ops", "unsupported", "template")
_OP_KEYS = ("targets", "commutes", "where")
_CHOICES: dict[str, tuple[str, ...]] = {
    "when": ("always", "inputs_quantized"),
    "reach": get_args(Reach),
    "mode": MODES,
}
_TEMPLATE_KEYS = ("group", "nodes", "quant", "check", "kernel", "packs", "on_request", *_CHOICES)
_ROLE = re.compile(r"\$([a-z][a-z0-9_]*)([?*]?)\Z")
_CHECK = re.compile(r"([a-z][a-z0-9_]*)\(([a-z0-9_, ]*)\)\Z")


def load(path: str | Path) -> PatternSet:
    """Read the pattern set in the TOML file ``path``.

    A bare name such as ``"pt2e"`` means the file of that name that comes with quantfx.

    Raises:
        PatternError: the file cannot be read or says something that does not hold.
    """
    file = _find(path)
    return _load_bundled(file) if file.parent == _BUNDLED else _load(file, ())


@cache
def _load_bundled(file: Path) -> PatternSet:
    """Read one of quantfx's own files, which do not change while a program runs, only once."""
    return _load(file, ())


def _load(file: Path, reading: tuple[Path, ...]) -> PatternSet:
    where = KeyPath(file.name)
    if file.resolve() in reading:
        raise where.error("the file extends itself")
    data = _read(file)
    where.known_keys(data, _TOP_KEYS)
    if data.get("schema") != SCHEMA:
        raise where.error(f"schema = {data.get('schema')!r}, expected {SCHEMA}")
    ops: dict[str, Op] = {}
    templates: list[Template] = []
    unsupported: dict[Op, str] = {}
    for key in ("vocabulary", "extends"):
        if key in data:
            other = _find_related(file, where.text(data[key], key))
            base = _load(other, (*reading, file.resolve()))
            ops |= base.vocabulary
            if key == "extends":
                templates += base.templates
                unsupported |= dict(base.unsupported)
    for name, value in where.table(data.get("ops", {}), "ops").items():
        ops[name] = _op(name, value, where.at(f"ops.{name}"))
    dropped = where.texts(data.get("without", []), "without")
    inherited = PatternSet(file.stem, tuple(templates), tuple(ops.values())).without(*dropped)
    unsupported |= _unsupported(data.get("unsupported", {}), ops, where.at("unsupported"))
    own = tuple(
        _template(name, value, ops, where.at(f"template.{name}"))
        for name, value in where.table(data.get("template", {}), "template").items()
    )
    for template in own:
        if template.name in inherited.names:
            raise where.error(f"template '{template.name}' is inherited; list it under 'without'")
    return PatternSet(
        file.stem,
        inherited.templates + own,
        tuple(ops.values()),
        unsupported=tuple(unsupported.items()),
    )


def _find(path: str | Path) -> Path:
    if isinstance(path, str) and "/" not in path and not path.endswith(".toml"):
        file = _BUNDLED / f"{path}.toml"
        if not file.exists():
            names = [found.stem for found in _BUNDLED.glob("*.toml")]
            raise PatternError(f"no pattern set '{path}'{did_you_mean(path, names)}; have {names}")
        return file
    return Path(path)


def _find_related(file: Path, name: str) -> Path:
    """Return the file that another names: beside it, or else one of quantfx's own."""
    beside = file.parent / name
    bundled = _BUNDLED / name
    return bundled if bundled.exists() and not beside.exists() else beside


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise PatternError(f"{file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise PatternError(f"{file.name}: not UTF-8 text: {error.reason}") from error
    except tomllib.TOMLDecodeError as error:
        raise PatternError(f"{file.name}: not valid TOML: {error}") from error


def _op(name: str, value: object, where: KeyPath) -> Op:
    table = {"targets": value} if isinstance(value, list) else where.table(value, name)
    where.known_keys(table, _OP_KEYS)
    names = where.texts(table.get("targets", []), "targets")
    if not names:
        raise where.error("'targets' must list at least one operator overload")
    targets = tuple(_target(target, where) for target in names)
    commutes = where.texts(table["commutes"], "commutes") if "commutes" in table else None
    if commutes is not None and len(set(commutes)) != 2:
        raise where.error("'commutes' must name two arguments")
    conditions = where.table(table.get("where", {}), "where")
    for argument in [*(commutes or ()), *conditions]:
        for target in targets:
            _require_argument(target, argument, where)
    return Op(
        name,
        targets,
        None if commutes is None else (commutes[0], commutes[1]),
        tuple((key, _literal(value)) for key, value in conditions.items()),
    )


def _unsupported(value: object, ops: Mapping[str, Op], where: KeyPath) -> dict[Op, str]:
    reasons = where.table(value, "unsupported")
    for name in reasons:
        if name not in ops:
            raise where.error(f"no op '{name}' in the vocabulary{did_you_mean(name, ops)}")
    return {ops[name]: where.text(reason, name) for name, reason in reasons.items()}


def _literal(value: object) -> object:
    """Return a hashable form of a TOML value: tuples for lists."""
    if isinstance(value, list):
        return tuple(_literal(item) for item in cast(list[object], value))
    return value


def _target(name: str, where: KeyPath) -> OpOverload[..., Any]:
    try:
        return resolve_op(name)
    except PatternError as error:
        raise where.error(str(error)) from None


def _require_argument(target: OpOverload[..., Any], name: str, where: KeyPath) -> None:
    known = arguments(target)
    if name not in known:
        raise where.error(f"{target} has no argument '{name}'{did_you_mean(name, known)}")


def _template(name: str, value: object, ops: Mapping[str, Op], where: KeyPath) -> Template:
    table = where.table(value, name)
    where.known_keys(table, _TEMPLATE_KEYS)
    chosen: dict[str, Any] = {
        key: where.choice(table.get(key, choices[0]), key, choices)
        for key, choices in _CHOICES.items()
    }
    if "group" not in table:
        raise where.error("'group' is missing: it names the pass that uses the template")
    listed = where.table(table.get("nodes", {}), "nodes")
    if not listed:
        raise where.error("'nodes' is empty")
    nodes = tuple(
        _node(node, body, listed, ops, where.at(f"nodes.{node}")) for node, body in listed.items()
    )
    template = Template(
        name,
        where.text(table["group"], "group"),
        nodes,
        quant=_quant(table.get("quant", {}), where),
        checks=tuple(_check(text, where) for text in where.texts(table.get("check", []), "check")),
        kernel=where.text(table.get("kernel", ""), "kernel"),
        packs=_names(table.get("packs", {}), "packs", where),
        on_request=where.flag(table.get("on_request", False), "on_request"),
        **chosen,
    )
    _require_graph(template.nodes, where)
    for variant in template.variants():
        _require_graph(variant.nodes, where)
    _require_names(template, ops, where)
    return template


def _names(value: object, what: str, where: KeyPath) -> dict[str, str]:
    table = where.table(value, what)
    return {key: where.text(spec, f"{what}.{key}") for key, spec in table.items()}


def _quant(value: object, where: KeyPath) -> dict[str, Quant]:
    found: dict[str, Quant] = {}
    for key, text in _names(value, "quant", where).items():
        parsed = parse_quant(text)
        if parsed is None:
            raise where.error(
                f"quant gives '{key}' {text}: not of the form spec, same(role) or spec(role, ...)"
            )
        found[key] = parsed
    return found


def _node(
    name: str, value: object, nodes: Mapping[str, Any], ops: Mapping[str, Op], where: KeyPath
) -> PatternNode:
    table = dict(where.table(value, name))
    given = table.pop("op", None)
    optional = where.flag(table.pop("optional", False), "optional")
    names = [given] if isinstance(given, str) else where.texts(given or [], "op")
    if not names:
        raise where.error("'op' is missing")
    for op in names:
        if op not in ops:
            raise where.error(f"no op '{op}' in the vocabulary{did_you_mean(op, ops)}")
    chosen = tuple(ops[op] for op in names)
    for argument in table:
        for each in chosen:
            for target in each.targets:
                _require_argument(target, argument, where)
    if len({each.commutes for each in chosen}) > 1:
        raise where.error("operators that commute and ones that do not cannot share a node")
    bindings = tuple((key, _binding(text, nodes, where)) for key, text in table.items())
    reads = sum(isinstance(binding, Ref) for _, binding in bindings)
    if optional and reads != 1:
        raise where.error("an optional node must read another node of the template, and only one")
    return PatternNode(name, chosen, bindings, optional)


def _binding(value: object, nodes: Mapping[str, Any], where: KeyPath) -> Binding:
    if not isinstance(value, str):
        return Constant(_literal(value))
    if len(value) > 1 and value[0] == value[-1] == "'":
        return Constant(value[1:-1])
    if value.startswith("$"):
        role = _ROLE.match(value)
        if role is None:
            raise where.error(f"'{value}' is not of the form $role, $role? or $role*")
        if role[1] == "out":
            raise where.error("a role cannot be named 'out': that is the template's result")
        return Role(role[1], optional=role[2] == "?", many=role[2] == "*")
    if value in nodes:
        return Ref(value)
    raise where.error(
        f"'{value}' is no node of the template{did_you_mean(value, nodes)}; roles begin with $, "
        "strings are written \"'so'\""
    )


def _check(text: str, where: KeyPath) -> Check:
    parsed = _CHECK.match(text)
    if parsed is None:
        raise where.error(f"check '{text}' is not of the form predicate(name, ...)")
    if parsed[1] not in PREDICATES:
        raise where.error(f"no predicate '{parsed[1]}'{did_you_mean(parsed[1], PREDICATES)}")
    return Check(parsed[1], tuple(name.strip() for name in parsed[2].split(",") if name.strip()))


def _require_graph(nodes: tuple[PatternNode, ...], where: KeyPath) -> None:
    """Refuse cycles, nodes that are not connected, and more than one output."""
    reads = {node.name: {b.node for _, b in node.arguments if isinstance(b, Ref)} for node in nodes}
    waiting = dict(reads)
    while waiting:
        ready = [name for name, needed in waiting.items() if not needed & waiting.keys()]
        if not ready:
            raise where.error(f"nodes {sorted(waiting)} form a cycle")
        for name in ready:
            del waiting[name]
    consumed = set[str]().union(*reads.values())
    outputs = [name for name in reads if name not in consumed]
    if len(outputs) != 1:
        raise where.error(f"exactly one node may be left unread, but {outputs} are")
    reached = {outputs[0]}
    while grown := set[str]().union(*(reads[name] for name in reached)) - reached:
        reached |= grown
    if reached != reads.keys():
        raise where.error(f"nodes {sorted(reads.keys() - reached)} do not lead to {outputs[0]}")


def _require_names(template: Template, ops: Mapping[str, Op], where: KeyPath) -> None:
    """Refuse ``quant`` and ``check`` entries that speak of roles or nodes that are not there."""
    for key, quant in template.quant.items():
        _require_quant(template, key, quant, where)
    for role, spec in template.packs.items():
        _require_pack(template, role, spec, where)
    for check in template.checks:
        _require_check(template, check, ops, where)
    if template.when == "inputs_quantized" and len(template.nodes) > 1:
        raise where.error("when = 'inputs_quantized' is for templates of one node")


def _require_quant(template: Template, key: str, quant: Quant, where: KeyPath) -> None:
    roles = [role.name for role in template.roles]
    for name in (key, *quant.roles):
        if name not in roles and name != "out":
            raise where.error(f"quant names '{name}', which is no role{did_you_mean(name, roles)}")
    if quant.is_same and key != "out":
        raise where.error(f"quant gives '{key}' {quant}: only 'out' is same(role)")
    if key == "out" and quant.roles and not quant.is_same:
        raise where.error(f"quant gives 'out' {quant}: it is a spec of its own, or same(role)")
    for role in quant.roles:
        if role not in template.quant or role == "out":
            raise where.error(f"{key} = {quant}: ${role} is not quantized itself")
        if not quant.is_same and template.quant[role].roles:
            raise where.error(f"{key} = {quant}: the qparams of ${role} are derived themselves")


def _require_pack(template: Template, role: str, spec: str, where: KeyPath) -> None:
    roles = [each.name for each in template.roles]
    quant = parse_quant(spec)
    if role not in roles:
        raise where.error(f"packs names '{role}', which is no role{did_you_mean(role, roles)}")
    if quant is None or quant.is_same or quant.roles:
        raise where.error(f"packs gives '{role}' {spec}: not the name of a spec")
    if role in template.quant or not template.is_weight(role):
        raise where.error(f"packs names '{role}', which must be constant({role}) and not in quant")


def _require_check(template: Template, check: Check, ops: Mapping[str, Op], where: KeyPath) -> None:
    predicate = PREDICATES[check.name]
    inner = [*(role.name for role in template.roles), *(node.name for node in template.nodes)]
    named, others = check.arguments[: predicate.nodes], check.arguments[predicate.nodes :]
    if len(named) < predicate.nodes or (others and not predicate.takes_ops):
        raise where.error(
            f"check {check}: {check.name} takes {predicate.nodes} nodes or roles"
            f"{', then op names' if predicate.takes_ops else ''}"
        )
    for known, given in ((inner, named), (list(ops), others)):
        for name in given:
            if name not in known:
                raise where.error(
                    f"check {check}: unknown name '{name}'{did_you_mean(name, known)}"
                )
