"""Every exception and warning of quantfx has a rule, and the documents list the rules."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import quantfx.errors

ROOT = Path(__file__).parents[1]
ROOMS = ("backends", "passes", "patterns", "quantfx", "tools")
BASES = {"QuantfxError", "QuantfxWarning"}


@cache
def trees() -> dict[Path, ast.Module]:
    """Parse the package, each file once: ``quantfx`` holds links to the other rooms."""
    files = {path.resolve() for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(files)}


def nodes() -> Iterator[ast.AST]:
    for tree in trees().values():
        yield from ast.walk(tree)


def last_name(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ast.unparse(function)


def ours() -> set[str]:
    """Return the names of all classes below the two bases."""
    classes = [node for node in nodes() if isinstance(node, ast.ClassDef)]
    found = set(BASES)
    while (
        more := {each.name for each in classes if found & {last_name(base) for base in each.bases}}
        - found
    ):
        found |= more
    return found


def documented() -> list[str]:
    text = (quantfx.errors.__doc__ or "").partition("Rules:")[2]
    return [
        word
        for line in re.sub(r"^ {4}\S.*?: ", "", text, flags=re.M).split("\n")
        for word in re.findall(r"[a-z0-9-]+", line)
    ]


def test_every_exception_that_is_made_has_a_rule() -> None:
    names = ours()
    assert names >= {*quantfx.errors.__all__, "ZooError", "EngineUnavailable", "OutsideDynamo"}
    made = [
        (str(path.relative_to(ROOT)), node)
        for path, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and last_name(node.func) in names
    ]
    assert len(made) > 250
    without = [
        f"{path}:{node.lineno}"
        for path, node in made
        if "rule" not in [keyword.arg for keyword in node.keywords]
    ]
    assert not without


def test_rules_are_words_that_the_documents_list_once() -> None:
    given = {
        value.value
        for node in nodes()
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "rule"
        for value in ast.walk(keyword.value)
        if isinstance(value, ast.Constant) and isinstance(value.value, str)
    }
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", rule) for rule in given)
    assert Counter(documented()) == Counter(given)


def test_warnings_of_ours_carry_fields() -> None:
    """A category beside a text would make a warning without a rule."""
    bare = [
        node.lineno
        for node in nodes()
        if isinstance(node, ast.Call) and last_name(node.func) == "warn"
        for argument in node.args[1:]
        if last_name(argument) == "QuantfxWarning"
    ]
    assert not bare
