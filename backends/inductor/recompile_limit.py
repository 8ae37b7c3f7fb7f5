"""The report when Dynamo's limit of graphs for one function is reached."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from quantfx.backends.inductor.compile_attempts import Attempt, attach_watch
from quantfx.backends.inductor.torch_internals import ReachedLimit
from quantfx.patterns.errors import QuantfxError, warn

# Graphs of another object are not meant: each object has its own limit.
_OTHER_OBJECT = re.compile(r"check_obj_id|got deallocated")
# The beginning of a guard, up to the value that it compares with, which differs between graphs.
_SUBJECT = re.compile(r"(.+?)(?: (?:==|!=|<=|>=|<|>|is|in|not in) |\.? expected )")
# Text of the guard that keeps failing, and how to keep it from failing.
_WAYS_OUT = (
    (
        _OTHER_OBJECT,
        "have graphs for each model by itself: quantfx.auto(model), or torch.compile(..., "
        "isolate_recompiles=True)",
    ),
    (
        re.compile(r"size mismatch|stride mismatch|\.size\(|\.stride\(|rank mismatch|\blen\("),
        "free the sizes that vary (torch.compile(..., dynamic=True), quantfx.auto(..., "
        "dynamic=True) or torch._dynamo.mark_dynamic), or pad to few of them",
    ),
    (re.compile(r"\btraining\b"), "keep the model in one mode: eval()"),
    (
        re.compile(r"grad|autocast|GLOBAL_STATE|global_state", re.IGNORECASE),
        "call it under one setting of gradients and autocast",
    ),
    (re.compile(r"dtype|dispatch key|device"), "pass inputs of one dtype and device"),
    (
        re.compile(r" == | is "),
        "keep the value the same, count outside of forward, or make it a tensor (register_buffer)",
    ),
)


def explain_limit(attempt: Attempt, limit: ReachedLimit, otherwise: str) -> str:
    """Return what happened, why, and what to do.

    Args:
        attempt: The attempt to compile the function.
        limit: The limit that it has reached.
        otherwise: How calls that fit no graph are computed, unless they are refused.
    """
    if attempt.is_strict:
        otherwise = "are refused, as fullgraph=True or fail_on_recompile_limit_hit asks"
    guard, count, total = frequent_guard(limit.reasons())
    cause = f". What keeps changing, in {count} of {total} graphs: {guard}" if guard else ""
    owner = "" if attempt.owner is None else f" of {type(attempt.owner).__name__}"
    return (
        f"{attempt.where}{owner} has reached Dynamo's {limit.name} ({limit.value}): calls that fit "
        f"none of its graphs {otherwise}, from now on; those that fit one run as before{cause}. "
        f"{_way_out(guard)}; to allow more graphs, set torch._dynamo.config.{limit.name} and call "
        "torch.compiler.reset()"
    )


def frequent_guard(reasons: Sequence[str]) -> tuple[str, int, int]:
    """Return the guard that fails most often, in how many graphs, and the number of graphs."""
    guards = [_guard(reason) for reason in reasons]
    guards = [each for each in guards if not _OTHER_OBJECT.search(each)] or guards
    subjects = Counter(map(_subject, guards))
    if not subjects:
        return "", 0, 0
    ((subject, count),) = subjects.most_common(1)
    return next(each for each in guards if _subject(each) == subject), count, len(guards)


def warns_at_limit(compiler: Callable[..., Any]) -> Callable[..., Any]:
    """Make a backend warn when its lowered graphs run uncompiled; return the backend."""
    return attach_watch(compiler, _warn)


def _warn(attempt: Attempt, **_: object) -> bool:
    # See ``Watch``.
    if attempt.limit is not None:
        otherwise = "run their int8 kernels one by one, without compiled code around them"
        message = explain_limit(attempt, attempt.limit, otherwise)
        if attempt.is_strict:
            raise QuantfxError(message, rule="recompile-limit", site=attempt.where)
        warn(message, rule="recompile-limit", site=attempt.where, stacklevel=2)
    return False  # no other module shares this code


def _guard(reason: str) -> str:
    """Return the guard in a reason such as ``0/7: self.n == 9    # self.n += 1  # model.py:5``."""
    text = re.sub(r"^\d+/\d+: ", "", reason.strip().splitlines()[0])
    return re.split(r"\s{2,}#|\s+\(HINT|\s+# ", text)[0].strip()


def _subject(guard: str) -> str:
    found = _SUBJECT.match(guard)
    return found.group(1) if found else guard


def _way_out(guard: str) -> str:
    ways = (way for pattern, way in _WAYS_OUT if pattern.search(guard))
    text = next(ways, "keep what the guard names the same from call to call")
    return text[0].upper() + text[1:]
