"""Read pattern sets from TOML and check them against the running torch.

Every error names the file, the key path and, if there is one, the nearest valid name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, cast, get_args

from torch._ops import OpOverload

from quantfx.patterns.checks import PREDICATES
from quantfx.patterns.errors import PatternError, did_you_mean, unknown_name
from quantfx.patterns.key_path import KeyPath, parse_toml, read_text
from quantfx.patterns.pattern_set import PatternSet
from quantfx.patterns.quant import Quant, parse_quant
from quantfx.patterns.require_template import require_graph, require_names
from quantfx.patterns.schema import arguments, resolve_op
from quantfx.patterns.template import (
    MODES,
    Binding,
    Check,
    Constant,
    Mode,
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
_TEMPLATE_KEYS = (
    "group", "nodes", "quant", "check", "kernel", "packs", "on_request", "also", "becomes",
    *_CHOICES,
)  # fmt: skip
_ROLE = re.compile(r"\$([a-z][a-z0-9_]*)([?*]?)\Z")
_CHECK = re.compile(r"([a-z][a-z0-9_]*)\(([a-z0-9_, ]*)\)\Z")


def load(path: str | Path) -> PatternSet:
    """Read the pattern set in the TOML file ``path``.

    A bare name such as ``"pt2e"`` means quantfx's own file of that name.

    Raises:
        PatternError: the file cannot be read, or an entry in it is invalid.
    """
    file = _find(path)
    return _load_bundled(file) if file.parent == _BUNDLED else _load(file, ())


@cache
def _load_bundled(file: Path) -> PatternSet:
    """Read one of quantfx's own files; each is read only once per process."""
    return _load(file, ())


def _load(file: Path, reading: tuple[Path, ...]) -> PatternSet:
    where = KeyPath(file.name)
    if file.resolve() in reading:
        raise where.error("the file extends itself", rule="extends-itself")
    data = parse_toml(read_text(file, PatternError), file.name, PatternError)
    where.known_keys(data, _TOP_KEYS)
    if data.get("schema") != SCHEMA:
        raise where.error(
            f"schema = {data.get('schema')!r}, expected {SCHEMA}", rule="file-version"
        )
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
            message = f"template '{template.name}' is inherited; list it under 'without'"
            raise where.error(message, rule="taken-name")
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
            raise unknown_name(PatternError, "pattern set", path, names)
        return file
    return Path(path)


def _find_related(file: Path, name: str) -> Path:
    """Return the file that ``file`` refers to as ``name``: beside it, or else quantfx's own."""
    beside = file.parent / name
    bundled = _BUNDLED / name
    return bundled if bundled.exists() and not beside.exists() else beside


def _op(name: str, value: object, where: KeyPath) -> Op:
    table = {"targets": value} if isinstance(value, list) else where.table(value, name)
    where.known_keys(table, _OP_KEYS)
    names = where.texts(table.get("targets", []), "targets")
    if not names:
        raise where.error("'targets' must list at least one operator overload", rule="missing-key")
    targets = tuple(_target(target, where) for target in names)
    commutes = where.texts(table["commutes"], "commutes") if "commutes" in table else None
    if commutes is not None and len(set(commutes)) != 2:
        raise where.error("'commutes' must name two arguments", rule="name-form")
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
            raise where.unknown("op", name, ops)
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
        raise error.within(str(where), PatternError) from None


def _require_argument(target: OpOverload[..., Any], name: str, where: KeyPath) -> None:
    known = arguments(target)
    if name not in known:
        raise where.unknown("argument", name, known, of=str(target))


def _template(name: str, value: object, ops: Mapping[str, Op], where: KeyPath) -> Template:
    table = where.table(value, name)
    where.known_keys(table, _TEMPLATE_KEYS)
    chosen: dict[str, Any] = {
        key: where.choice(table.get(key, choices[0]), key, choices)
        for key, choices in _CHOICES.items()
    }
    if "group" not in table:
        raise where.error(
            "'group' is missing: it names the pass that uses the template", rule="missing-key"
        )
    listed = where.table(table.get("nodes", {}), "nodes")
    if not listed:
        raise where.error("'nodes' is empty", rule="missing-key")
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
        becomes=where.text(table.get("becomes", ""), "becomes"),
        also=tuple(
            cast(Mode, where.choice(each, "also", MODES))
            for each in where.texts(table.get("also", []), "also")
        ),
        **chosen,
    )
    require_graph(template.nodes, where)
    for variant in template.variants():
        require_graph(variant.nodes, where)
    require_names(template, ops, where)
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
                f"quant gives '{key}' {text}: not of the form spec, same(role) or spec(role, ...)",
                rule="name-form",
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
        raise where.error("'op' is missing", rule="missing-key")
    for op in names:
        if op not in ops:
            raise where.unknown("op", op, ops)
    chosen = tuple(ops[op] for op in names)
    for argument in table:
        for each in chosen:
            for target in each.targets:
                _require_argument(target, argument, where)
    if len({each.commutes for each in chosen}) > 1:
        message = "operators that commute cannot share a node with operators that do not"
        raise where.error(message, rule="commuting-node")
    bindings = tuple((key, _binding(text, nodes, where)) for key, text in table.items())
    reads = sum(isinstance(binding, Ref) for _, binding in bindings)
    if optional and reads != 1:
        message = "an optional node must read exactly one other node of the template"
        raise where.error(message, rule="optional-node")
    return PatternNode(name, chosen, bindings, optional)


def _binding(value: object, nodes: Mapping[str, Any], where: KeyPath) -> Binding:
    if not isinstance(value, str):
        return Constant(_literal(value))
    if len(value) > 1 and value[0] == value[-1] == "'":
        return Constant(value[1:-1])
    if value.startswith("$"):
        role = _ROLE.match(value)
        if role is None:
            raise where.error(
                f"'{value}' is not of the form $role, $role? or $role*", rule="name-form"
            )
        if role[1] == "out":
            raise where.error(
                "a role cannot be named 'out': that is the template's result", rule="taken-name"
            )
        return Role(role[1], optional=role[2] == "?", many=role[2] == "*")
    if value in nodes:
        return Ref(value)
    message = f"'{value}' is not a node of the template{did_you_mean(value, nodes)}"
    fix = "begin a role with $, and write a string as \"'so'\""
    raise where.error(message, rule="unknown-name", fix=fix)


def _check(text: str, where: KeyPath) -> Check:
    parsed = _CHECK.match(text)
    if parsed is None:
        raise where.error(
            f"check '{text}' is not of the form predicate(name, ...)", rule="name-form"
        )
    if parsed[1] not in PREDICATES:
        raise where.unknown("predicate", parsed[1], PREDICATES)
    return Check(parsed[1], tuple(name.strip() for name in parsed[2].split(",") if name.strip()))
