"""The text form of pipelines: ``fold-batch-norm, annotate(a, b), my-pass{threshold=3}``."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, NoReturn

from quantfx.passes.errors import PipelineError
from quantfx.passes.pipeline.base import Pass
from quantfx.passes.pipeline.known_passes import known_names, known_passes
from quantfx.patterns.errors import unknown_name

if TYPE_CHECKING:
    from quantfx.passes.pipeline.pipeline import Element, Pipeline

_TOKEN = re.compile(r"\s*(?:([A-Za-z]\w*(?:-\w+)*)|([(){},])|(\S))")


def format_elements(elements: Sequence[Element]) -> str:
    """Return the text form of ``elements``."""
    return ", ".join(_format(element) for element in elements)


def parse_elements(
    text: str, passes: Sequence[type[Pass]], make: Callable[..., Pipeline]
) -> tuple[Element, ...]:
    """Return the passes and nested pipelines that ``text`` describes.

    Raises:
        PipelineError: names the column and the nearest known name.
    """
    return _Parser(text, passes, make).parse()


def _format(element: Element) -> str:
    if not isinstance(element, Pass):
        return f"{element.name}({format_elements(element.elements)})"
    options = [
        f"{field.name}={getattr(element, field.name)!r}"
        for field in fields(element)
        if field.name != element.named_by and getattr(element, field.name) != field.default
    ]
    return element.name + (f"{{{', '.join(options)}}}" if options else "")


class _Parser:
    def __init__(
        self, text: str, passes: Sequence[type[Pass]], make: Callable[..., Pipeline]
    ) -> None:
        self._text = text
        self._passes = passes
        self._make = make
        self._at = 0

    def parse(self) -> tuple[Element, ...]:
        elements = tuple(self._elements())
        if self._peek() is not None:
            self._fail(f"expected ',' or the end, not '{self._peek()}'")
        return elements

    def _elements(self) -> Iterator[Element]:
        if self._peek() in (None, ")"):
            return
        yield self._element()
        while self._peek() == ",":
            self._next()
            yield self._element()

    def _element(self) -> Element:
        name = self._next()
        if name is None or not name[0].isalpha():
            self._fail(f"expected the name of a pass, not {name!r}")
        if self._peek() == "(":
            self._next()
            elements = tuple(self._elements())
            if self._next() != ")":
                self._fail("expected ')'")
            return self._make(elements, name)
        found = next(self._find_named(name), None)
        if found is None:
            given = [known for kind in self._passes for known in kind.names()]
            raise self._unknown("pass", name, given + known_names())
        return self._pass(*found)

    def _find_named(self, name: str) -> Iterator[tuple[type[Pass], dict[str, Any]]]:
        """Yield the pass classes with that name, with the options that the name contains."""
        for kind in (*self._passes, *known_passes(name)):
            if not kind.named_by and name == kind.name:
                yield kind, {}
            elif kind.named_by and name.startswith(f"{kind.name}-"):
                yield kind, {kind.named_by: name.removeprefix(f"{kind.name}-")}

    def _pass(self, kind: type[Pass], options: dict[str, Any]) -> Pass:
        if self._peek() == "{":
            self._next()
            body, closing = self._body()
            known = [field.name for field in fields(kind) if field.name not in options]
            for name, value in _options(body):
                if name not in known:
                    raise self._unknown("option", name, known, of=kind.name)
                options[name] = value
            self._at = closing
        try:
            return kind(**options)
        except PipelineError as error:
            raise error.within(f"column {self._at}: {kind.name}", PipelineError) from None
        except TypeError as error:
            self._fail(f"{kind.name}: {error}")

    def _body(self) -> tuple[str, int]:
        """Return the text up to the brace that closes the options, and its end position."""
        closing = self._text.find("}", self._at)
        if closing < 0:
            self._fail("'{' is never closed")
        return self._text[self._at : closing], closing + 1

    def _peek(self) -> str | None:
        at = self._at
        token = self._next()
        self._at = at
        return token

    def _next(self) -> str | None:
        found = _TOKEN.match(self._text, self._at)
        if found is None:
            return None
        self._at = found.end()
        return found[1] or found[2] or found[3]

    def _unknown(
        self, what: str, name: str, known: Iterable[str], *, of: str = ""
    ) -> PipelineError:
        error = unknown_name(PipelineError, what, name, known, of=of)
        return error.within(f"column {self._at}", PipelineError)

    def _fail(self, message: str, rule: str = "pipeline-text") -> NoReturn:
        place = f"column {self._at}"
        raise PipelineError(f"{place}: {message}", rule=rule, site=place)


def _options(text: str) -> Iterator[tuple[str, Any]]:
    """Yield ``(name, value)``; values are Python literals."""
    try:
        call = ast.parse(f"f({text})", mode="eval").body
    except SyntaxError as error:
        raise _not_options(text, f": {error.msg}") from None
    if not isinstance(call, ast.Call) or call.args:
        raise _not_options(text)
    for keyword in call.keywords:
        try:
            yield str(keyword.arg), ast.literal_eval(keyword.value)
        except ValueError:
            message = f"option '{keyword.arg}' is not a literal value"
            raise PipelineError(message, rule="pipeline-text", site=keyword.arg) from None


def _not_options(text: str, reason: str = "") -> PipelineError:
    message = f"options '{text}' are not of the form key=value{reason}"
    return PipelineError(message, rule="pipeline-text", site=text)
