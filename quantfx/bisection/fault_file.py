"""A reduced graph as a Python file that shows its fault when run."""

from __future__ import annotations

import inspect
import keyword
import math
import operator
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._ops import HigherOrderOperator, OpOverload

from quantfx.bisection.shrink import INLINE, RandomTensor, Shrunk
from quantfx.bisection.slices import Argument, Call, Stored, map_named
from quantfx.passes.errors import BisectError, FileError

_HEAD = '''"""A fault that quantfx.reduce made small.

{message}

Run this file: it says so and exits with status 1, as long as the fault is there.
"""

{imports}

{setup}
{graph}
{end}
'''
_RESERVED = {"graph", "module", "torch", "quantfx", "operator", "sys", "saved", "math", "Path"}


@dataclass(frozen=True)
class Ending:
    """What a file does with its graph.

    Attributes:
        setup: Lines before the graph: pipelines as text.
        lines: Lines after the graph; the last asserts.
        imports: Import lines that both need.

    Raises:
        BisectError: the lines are not valid code.
    """

    lines: tuple[str, ...]
    _: KW_ONLY
    setup: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _require_code("\n".join([*self.imports, *self.setup, *self.lines]))


def write_fault(path: Path, shrunk: Shrunk, ending: Ending) -> None:
    """Write the file, and beside it the large tensors that the fault depends on.

    Raises:
        BisectError: something in the graph has no code.
        FileError: it cannot be written.
    """
    saved = {
        line.name: line.value
        for line in shrunk.graph.lines
        if isinstance(line, (Argument, Stored))
        and line.value.numel() > INLINE
        and line.name not in shrunk.random
    }
    imports = _imports(shrunk, ending, has_saved=bool(saved))
    load = [
        "# Tensors that the fault depends on.",
        'saved = torch.load(Path(__file__).with_suffix(".pt"))',
    ]
    text = _HEAD.format(
        message=shrunk.message.replace("\\", "/").replace('"""', "'''"),
        imports="\n".join(imports),
        setup="\n".join([*ending.setup, *(load if saved else [])]),
        graph="\n".join(["graph = GraphBuilder()", *_lines(shrunk, saved)]),
        end="\n".join(ending.lines),
    )
    _require_code(text)
    try:
        path.write_text(text, encoding="utf-8")
        if saved:
            torch.save(saved, path.with_suffix(".pt"))
    except OSError as error:
        message = f"{path} cannot be written: {error.strerror}"
        raise FileError(message, rule="unwritable-file", site=str(path)) from error


def _imports(shrunk: Shrunk, ending: Ending, *, has_saved: bool) -> list[str]:
    used = {_code_of(each).partition(".")[0] for each in shrunk.graph.calls}
    plain = ["sys", *sorted(used & {"math", "operator"})]
    named = {"from quantfx.bisection.graph_builder import GraphBuilder", *ending.imports}
    if shrunk.random:
        named.add("from quantfx.bisection.graph_builder import random_tensor")
    if has_saved:
        named.add("from pathlib import Path")
    return [
        "from __future__ import annotations\n",
        *(f"import {each}" for each in sorted(plain)),
        "\nimport torch\n",
        *sorted(named, key=lambda line: (line.startswith("from"), line)),
    ]


def _require_code(text: str) -> None:
    try:
        compile(text, "<fault>", "exec")
    except SyntaxError as error:
        raise BisectError(
            f"the file cannot hold this as code: {error.text}",
            rule="no-text-form",
            fix="take a check of plain values, whose repr makes it again",
        ) from error


def importable(value: object) -> str:
    """Return the line that imports a class or function.

    Raises:
        BisectError: no module holds it by a name that a file could import.
    """
    is_named = inspect.isclass(value) or inspect.isroutine(value)
    name = getattr(value, "__qualname__", "") if is_named else repr(value)
    module = inspect.getmodule(value)
    if module is None or module.__name__ == "__main__" or not name.isidentifier():
        raise BisectError(
            f"the file would have to import '{name}', which no module holds by that name",
            rule="no-text-form",
            site=name,
            fix="define it in a module, at the top level, or take one of quantfx.checks",
        )
    return f"from {module.__name__} import {name}"


def _lines(shrunk: Shrunk, saved: dict[str, Any]) -> Iterator[str]:
    names = {line.name: _variable(line.name) for line in shrunk.graph.lines}
    for line in shrunk.graph.lines:
        made = f"{names[line.name]} = graph."
        if isinstance(line, Call):
            yield f"{made}call({_call(line, names)})"
            continue
        value = _tensor(line.value, line.name, shrunk.random.get(line.name), saved)
        if isinstance(line, Stored):
            yield f"{made}stored({line.name!r}, {line.target!r}, {value})"
        else:
            yield f"{made}argument({line.name!r}, {value})"
    yield f"module = graph.module({', '.join(names[each] for each in shrunk.graph.results)})"


def _call(line: Call, names: dict[str, str]) -> str:
    quoted = {name: _Code(variable) for name, variable in names.items()}
    args, kwargs = map_named((line.args, dict(line.kwargs)), quoted)
    parts = [repr(line.name), _code_of(line), *map(_value, args)]
    parts += [f"scope={line.scope!r}"] if line.scope else []
    return ", ".join([*parts, *(f"{key}={_value(each)}" for key, each in kwargs.items())])


class _Code(str):
    """Text that is its own repr."""

    def __repr__(self) -> str:
        return str(self)


def _value(value: Any) -> str:
    if isinstance(value, torch.device):
        return f"torch.device({str(value)!r})"
    if isinstance(value, float) and not math.isfinite(value):
        return f"float({str(value)!r})"
    if isinstance(value, complex):
        return f"complex({_value(value.real)}, {_value(value.imag)})"
    if isinstance(value, (list, tuple)):
        inner = ", ".join(map(_value, value))
        comma = "," if isinstance(value, tuple) and len(value) == 1 else ""
        return f"[{inner}]" if isinstance(value, list) else f"({inner}{comma})"
    return repr(value)


def _code_of(line: Call) -> str:
    target = line.target
    if isinstance(target, OpOverload):
        return f"torch.ops.{target}"
    if isinstance(target, HigherOrderOperator):
        return f"torch.ops.higher_order.{target.__name__}"
    module = "operator" if getattr(operator, target.__name__, None) is target else target.__module__
    return f"{module}.{target.__name__}"


def _tensor(value: Tensor, name: str, random: RandomTensor | None, saved: dict[str, Any]) -> str:
    if random is not None:
        values = f"{random.low!r}, {random.high!r}, seed={random.seed}"
        return f"random_tensor({random.shape!r}, torch.{random.dtype}, {values})"
    if name in saved:
        return f"saved[{name!r}]"
    if value.numel() > 1 and bool((value == value.flatten()[0]).all()):
        item = _value(value.flatten()[0].item())
        return f"torch.full({tuple(value.shape)}, {item}, dtype={value.dtype})"
    return (
        f"torch.tensor({_value(value.tolist())}, dtype={value.dtype}).reshape({tuple(value.shape)})"
    )


def _variable(name: str) -> str:
    return f"{name}_" if name in _RESERVED or keyword.iskeyword(name) else name
