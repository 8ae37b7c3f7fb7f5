"""Configs as TOML and JSON.

A file holds ``schema``, ``default`` and a list of rules; each rule has one selector key, then its
decision::

    schema = 1
    default = "static"

    [[rule]]
    module = "encoder.*"
    mode = "dynamic"
    weights = { observer = "min_max" }

    [[rule]]
    tensor = "conv2d_3.input"
    mode = "float"
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias, cast

from quantfx.passes.config.rule import SELECTORS, CallRule, Rule, TensorRule, mode_of, specs_of
from quantfx.passes.config.selectors import NAMED, Everything, Named, Selector, TensorSelector
from quantfx.passes.config.spec_change import FLOAT, Change, Float, change_of
from quantfx.passes.errors import ConfigError
from quantfx.patterns.key_path import KeyPath, parse_toml, read_text
from quantfx.patterns.template import Mode

SCHEMA = 1
_KEYS = ("schema", "default", "rule")
Parts: TypeAlias = tuple[Mode | Float, tuple[Rule, ...]]
_RULE_HEADER = re.compile(r"\s*\[\[\s*rule\s*\]\]")


def to_table(default: Mode | Float, rules: Iterable[Rule]) -> dict[str, Any]:
    """Return a config as plain data.

    Raises:
        ConfigError: a rule selects by a function.
    """
    listed = [_rule_table(rule) for rule in rules]
    return {"schema": SCHEMA, "default": default} | ({"rule": listed} if listed else {})


def to_json(default: Mode | Float, rules: Iterable[Rule]) -> str:
    """Return a config as JSON."""
    return json.dumps(to_table(default, rules), indent=2) + "\n"


def to_toml(default: Mode | Float, rules: Iterable[Rule]) -> str:
    """Return a config as TOML."""
    table = to_table(default, rules)
    lines = [f"{key} = {_toml(table[key])}" for key in ("schema", "default")]
    for rule in table.get("rule", []):
        lines += ["", "[[rule]]", *(f"{_key(key)} = {_toml(value)}" for key, value in rule.items())]
    return "\n".join([*lines, ""])


def read(path: Path) -> Parts:
    """Return the config in the file ``path``; the suffix says whether it is TOML or JSON.

    Raises:
        ConfigError: the file cannot be read, or as for `from_table`.
    """
    text = read_text(path, ConfigError)
    return (from_json if path.suffix.lower() == ".json" else from_toml)(text, path.name)


def from_toml(text: str, file: str) -> Parts:
    """Return the config that TOML ``text`` describes; errors call it ``file``."""
    _require_text(text, file)
    table = parse_toml(text, file, ConfigError)
    lines = [n for n, line in enumerate(text.splitlines(), start=1) if _RULE_HEADER.match(line)]
    return from_table(table, file, lines)


def from_json(text: str, file: str) -> Parts:
    """Return the config that JSON ``text`` describes; errors call it ``file``."""
    _require_text(text, file)
    try:
        table = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{file}: not valid JSON: {error}", rule="unreadable-file", site=file
        ) from error
    return from_table(KeyPath(file, error=ConfigError).table(table, "config"), file)


def from_table(table: Mapping[str, Any], file: str, lines: Iterable[int] = ()) -> Parts:
    """Return the config that plain data describes.

    Args:
        table: What a file holds.
        file: What errors call it.
        lines: Line of each rule, if known.

    Raises:
        ConfigError: names the rule and the nearest valid name.
    """
    place = KeyPath(file, error=ConfigError)
    odd = [key for key in table if not isinstance(cast(object, key), str)]
    if odd:
        raise place.unknown("key", odd[0], _KEYS)
    place.known_keys(table, _KEYS)
    schema = table.get("schema", SCHEMA)
    if schema != SCHEMA:
        raise place.error(f"schema = {schema!r}, expected {SCHEMA}", rule="file-version")
    try:
        default = mode_of(table.get("default", "static"))
    except ConfigError as error:
        raise error.within(f"{place}: default", ConfigError) from None
    listed = table.get("rule", [])
    if not isinstance(listed, (list, tuple)):
        raise place.error("'rule' must be a list of tables: [[rule]]", rule="wrong-type")
    known = [f", line {line}" for line in lines]
    rules: list[Rule] = []
    for index, rule in enumerate(cast(list[object], listed)):
        where = place.at(f"rule {index + 1}{known[index] if index < len(known) else ''}")
        try:
            rules.append(_rule(where.table(rule, "rule"), where))
        except ConfigError as error:
            raise (
                error if str(error).startswith(file) else error.within(str(where), ConfigError)
            ) from None
    return default, tuple(rules)


def _require_text(text: object, file: str) -> None:
    if not isinstance(text, str):
        message = f"{file}: expected a str of text, not {type(text).__name__}"
        raise ConfigError(message, rule="wrong-type", site=file)


def _rule(table: Mapping[str, Any], place: KeyPath) -> Rule:
    given = [key for key in table if key in SELECTORS]
    if len(given) != 1:
        raise place.error(
            f"a rule has one selector of {SELECTORS}, not {given or 'none'}", rule="config-value"
        )
    [kind] = given
    selector: Selector = Everything()
    if kind == Everything.kind:
        if place.flag(table[kind], kind) is False:
            raise place.error("'all' is true or left out", rule="config-value")
    else:
        selector = NAMED[kind](place.text(table[kind], kind))
    rest = {key: value for key, value in table.items() if key != kind}
    if isinstance(selector, TensorSelector):
        return TensorRule(selector, _tensor(rest))
    mode = mode_of(rest.pop("mode")) if "mode" in rest else None
    return CallRule(selector, mode, specs_of(rest))


def _tensor(table: dict[str, Any]) -> Change:
    if "mode" not in table:
        return change_of(table)
    if table != {"mode": FLOAT}:
        message = "a tensor has either mode = 'float', or options such as observer"
        raise ConfigError(message, rule="config-value", site="mode")
    return FLOAT


def _rule_table(rule: Rule) -> dict[str, Any]:
    selector = rule.selector
    table: dict[str, Any]
    if isinstance(selector, Named):
        table = {selector.kind: selector.name}
    elif isinstance(selector, Everything):
        table = {selector.kind: True}
    else:
        message = f"rule {rule} selects by a function, which has no text form"
        raise ConfigError(message, rule="no-text-form", site=str(rule))
    if isinstance(rule, TensorRule):
        return table | ({"mode": FLOAT} if rule.change == FLOAT else _to_plain(rule.change))
    table |= {} if rule.mode is None else {"mode": rule.mode}
    return table | {name: _to_plain(change) for name, change in rule.specs}


def _to_plain(change: Change) -> Any:
    return change if isinstance(change, str) else change.options()


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{ {', '.join(_toml_pairs(cast(Mapping[str, Any], value)))} }}"
    # JSON's strings, numbers and booleans are valid TOML, except for this one character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _toml_pairs(table: Mapping[str, Any]) -> Iterator[str]:
    for key, value in table.items():
        yield f"{_key(key)} = {_toml(value)}"


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _toml(key)
