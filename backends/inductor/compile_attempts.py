"""Watch Dynamo's attempts to compile for quantfx's backends, and its refusals.

Dynamo calls a backend for graphs only. At its limit of graphs for one function, it lets Python run
calls that fit no graph, for good, without calling the backend. But before each compile, even one
that it then refuses, it calls hooks. The hook here finds the backend that compiles, and tells its
watch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from functools import partial
from types import CodeType
from typing import Any, TypeVar

from torch import nn

from quantfx.backends.inductor.torch_internals import (
    ReachedLimit,
    call_before_compiles,
    current_region,
    inner_backend,
    leave_to_python,
    reached_limit,
    values_of_compile,
    wants_errors,
)

_RESUMES = "torch_dynamo_resume_in_"
_ATTRIBUTE = "quantfx_watch"


@dataclass(frozen=True)
class Attempt:
    """Dynamo is about to compile a Python frame.

    Attributes:
        code: The frame's code.
        owner: The module whose method it is or that it wraps; None if there is none.
        region: The number of the group of compiles that share graphs with it.
        is_strict: Whether the user asked for an error if something is not compiled.
        limit: The reached limit, if it will not be compiled.
    """

    code: CodeType
    _: KW_ONLY
    owner: nn.Module | None
    region: int
    is_strict: bool
    limit: ReachedLimit | None

    @property
    def where(self) -> str:
        """Function and place, for messages."""
        return place_of(self.code)


Watch = Callable[..., bool]
"""Called with an ``Attempt`` and, by name, what ``torch.compile`` was given for the backend.

At a limit it says whether the function has to stay open for objects that share its code.
"""
_Compiler = TypeVar("_Compiler", bound=Callable[..., Any])


def attach_watch(compiler: _Compiler, watch: Watch) -> _Compiler:
    """Report each attempt to compile for ``compiler`` to ``watch``; return ``compiler``."""
    setattr(compiler, _ATTRIBUTE, watch)
    watch_compiles()
    return compiler


def watch_compiles() -> None:
    """Make Dynamo call the hook, unless it already does.

    Raises:
        QuantfxError: this torch compiles in another way.
    """
    call_before_compiles(_tell)


def place_of(code: CodeType) -> str:
    """Return the name and place of a function."""
    name = code.co_name
    if resumes(code):
        name = f"behind a graph break in {name.removeprefix(_RESUMES).rpartition('_at_')[0]}"
    return f"{name} ({code.co_filename}:{code.co_firstlineno})"


def resumes(code: CodeType) -> bool:
    """Whether Dynamo made the function of the rest of another after a graph break."""
    return code.co_name.startswith(_RESUMES)


def _tell() -> str:
    """Tell the watch of the backend that compiles; Dynamo calls this."""
    values = values_of_compile()
    if values is None:
        return ""
    watch, given = _watch_of(values["compiler_fn"])
    if watch is None:
        return ""
    code: CodeType = values["code"]
    attempt = Attempt(
        code,
        owner=_owner(values["frame"].f_locals, code),
        region=current_region(),
        is_strict=wants_errors(values),
        limit=reached_limit(values),
    )
    if watch(attempt, **given) and attempt.limit is not None:
        leave_to_python(f"{attempt.where} has reached {attempt.limit.name}")
    return ""  # a hook may return a context


def _watch_of(compiler: Any) -> tuple[Watch | None, dict[str, Any]]:
    """Return the watch of a backend, and the options that ``torch.compile`` was given for it."""
    given: dict[str, Any] = {}
    while compiler is not None:
        is_partial = isinstance(compiler, partial)
        given = {**getattr(compiler, "keywords" if is_partial else "kwargs", {}), **given}
        watch: Watch | None = getattr(compiler, _ATTRIBUTE, None)
        if watch is not None:
            return watch, given
        compiler = compiler.func if is_partial else inner_backend(compiler)
    return None, given


def _owner(values: Mapping[str, Any], code: CodeType) -> nn.Module | None:
    # Dynamo's wrapper of a torch.nn module has the module, or its method, as a free variable.
    names = (*code.co_varnames[:1], *code.co_freevars)
    found = (values.get(name) for name in names)
    owners = (each if isinstance(each, nn.Module) else _self(each) for each in found)
    return next((each for each in owners if isinstance(each, nn.Module)), None)


def _self(method: object) -> object:
    return getattr(method, "__self__", None)
