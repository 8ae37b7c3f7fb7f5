"""Dynamo still tells, in front of each compile, what ``backends/inductor/compile_attempts.py`` reads."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import FunctionType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo import convert_frame, utils

from quantfx.backends.inductor import torch_internals
from quantfx.backends.inductor.compile_attempts import Attempt, attach_watch, watch_compiles
from quantfx.backends.inductor.torch_internals import SHARED_REGION, is_compiled
from quantfx.patterns.errors import QuantfxError


def backend(graph: Any, _: Any, **__: object) -> Callable[..., Any]:
    run: Callable[..., Any] = graph.forward
    return run


Seen = tuple[Attempt, dict[str, Any], list[str]]


def seen(**options: Any) -> tuple[Any, list[Seen]]:
    found: list[Seen] = []

    def watch(attempt: Attempt, **given: Any) -> bool:
        # From torch 2.14 on, the frame that the reasons are read from goes with the attempt.
        found.append((attempt, given, attempt.limit.reasons() if attempt.limit else []))
        return False

    compiler = attach_watch(partial(backend, taken="by"), watch)
    compile_model: Any = torch.compile
    return compile_model(nn.Sequential(nn.ReLU()), backend=compiler, **options), found


def test_what_an_attempt_says() -> None:
    torch.compiler.reset()
    model, found = seen(dynamic=False)
    for rows in range(2, 5):
        with torch._dynamo.config.patch(recompile_limit=2):
            model(torch.randn(rows))
    (first, given, _), _, (last, _, reasons) = found
    assert first.owner is model._orig_mod
    assert first.region == SHARED_REGION
    assert given == {"taken": "by"}
    assert (first.limit, first.is_strict) == (None, False)
    assert first.where.startswith("inner (")  # what Dynamo puts around modules of torch.nn
    assert is_compiled(first.code)
    assert not is_compiled(backend.__code__)
    assert last.limit is not None
    assert (last.limit.name, last.limit.value) == ("recompile_limit", 2)
    assert len(last.limit.graphs) == 2
    assert ["size mismatch" in each for each in reasons] == [True, True]


def test_options_are_told_and_an_isolated_region_is_another() -> None:
    torch.compiler.reset()
    model, found = seen(options={"a": 1}, fullgraph=True, isolate_recompiles=True)
    model(torch.randn(2))
    ((attempt, given, _),) = found
    assert given == {"taken": "by", "options": {"a": 1}}
    assert attempt.is_strict
    assert attempt.region != SHARED_REGION


def test_the_hook_is_registered_once_and_again_after_it_was_removed() -> None:
    watch_compiles()
    watch_compiles()
    hooks = utils.get_hook_for_recompile_user_context()
    assert hooks is not None
    ours = [
        each for each in hooks if each.__module__ == "quantfx.backends.inductor.compile_attempts"
    ]
    assert len(ours) == 1
    assert ours[0]() == ""  # outside of a compile
    utils.reset_recompile_user_contexts()
    watch_compiles()
    assert utils.get_hook_for_recompile_user_context() == ours


def test_another_way_of_compiling_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def other(compiler_fn: Any, frame: Tensor) -> None:
        """Take the place of Dynamo's function."""

    torch_internals._require_locals.cache_clear()
    assert isinstance(other, FunctionType)
    monkeypatch.setattr(convert_frame, "_compile", other)
    with pytest.raises(QuantfxError, match=r"has no 'cache_entries' in .*convert_frame\._compile"):
        watch_compiles()
