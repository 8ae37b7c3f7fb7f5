"""Check what people hand a pipeline: that it is a pass with a name, and what its methods return."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast, get_args

from quantfx.passes.errors import PassError, PipelineError
from quantfx.passes.graph.remark import AnyRemark
from quantfx.passes.pipeline.base import Pass, PassResult

_REMARKS = get_args(AnyRemark)


def require_pass(given: object) -> None:
    """Refuse an element of a pipeline that is not a pass, or a pass without a name.

    Raises:
        PipelineError: it is not; says what was given.
    """
    kind = type(given).__name__
    if not isinstance(given, Pass):
        fix = "write a class with Pass or GraphPass as its base"
        if isinstance(given, type):
            fix = f"write {given.__name__}(), which makes one"
        elif isinstance(given, str):
            fix = "write Pipeline.parse(text), which reads passes by name"
        message = f"{_told(given)} is not a pass"
        raise PipelineError(message, rule="not-a-pass", site=kind, fix=fix)
    name: object = getattr(given, "name", None)
    if not isinstance(name, str) or not name:
        fix = f'write name: ClassVar[str] = "..." in the class {kind}'
        raise PipelineError(f"the pass {kind} has no name", rule="pass-name", site=kind, fix=fix)


def checked_result(name: str, returned: object) -> PassResult:
    """Return what ``run`` of the pass called ``name`` returned.

    Raises:
        PassError: it is not a result of a pass; says what it is.
    """
    if not isinstance(returned, PassResult):
        message = f"run returned {_told(returned)}, not a PassResult"
        fix = "end run with return PassResult(); the module is changed in place, not returned"
        raise PassError(message, rule="pass-result", site=name, fix=fix)
    problem = _remarks_problem(returned.remarks) or _stats_problem(returned.stats)
    if problem:
        fix = "return PassResult(remarks, stats), where both may be left out"
        message = f"run returned a PassResult whose {problem}"
        raise PassError(message, rule="pass-result", site=name, fix=fix)
    return returned


def checked_count(name: str, returned: object) -> int:
    """Return what ``rewrite`` of the pass called ``name`` returned.

    Raises:
        PassError: it is not a number.
    """
    if not isinstance(returned, int):
        message = f"rewrite returned {_told(returned)}, not a number"
        fix = "return how many rewrites it made, 0 for none"
        raise PassError(message, rule="pass-result", site=name, fix=fix)
    return returned


def _remarks_problem(remarks: object) -> str:
    if not isinstance(remarks, (tuple, list)):
        return f"remarks is {_told(remarks)}, not a tuple of remarks"
    for remark in cast(tuple[object, ...], remarks):
        if not isinstance(remark, _REMARKS):
            return f"remarks holds {_told(remark)}, not only remarks"
    return ""


def _stats_problem(stats: object) -> str:
    if not isinstance(stats, Mapping):
        return f"stats is {_told(stats)}, not a dict of counts"
    for key, value in cast("Mapping[object, object]", stats).items():
        if not isinstance(value, int):
            return f"stats[{key!r}] is {_told(value)}, not a number"
    return ""


def _told(value: object) -> str:
    """Return words for a value whose text may be long: ``a GraphModule``, ``None``, ``'share'``."""
    if value is None or isinstance(value, (str, int, float)):
        return repr(value)
    if isinstance(value, type):
        return f"the class {value.__name__}"
    kind = type(value).__name__
    return f"{'an' if kind[0] in 'AEIOaeio' else 'a'} {kind}"
