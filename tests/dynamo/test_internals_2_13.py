"""Names of Dynamo without a public counterpart still mean what ``dynamo/internals.py`` expects."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from quantfx.dynamo import internals
from tests.dynamo.models import Branch, Mlp, batches
from tests.refusals import refused


def seen(model: nn.Module, *args: Any, dynamic: bool | None = None) -> list[Any]:
    found: list[Any] = []

    def backend(module: GraphModule, _: list[Any]) -> Callable[..., Any]:
        frame, inputs = internals.current_frame(), internals.graph_inputs(module)
        found.append((frame, inputs, [internals.owner_of(each.node, frame) for each in inputs]))
        return module.forward

    torch.compile(model, backend=backend, dynamic=dynamic)(*args)
    return found


def test_nothing_is_missing() -> None:
    internals.require_internals.cache_clear()
    internals.require_internals()


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    internals.require_internals.cache_clear()
    monkeypatch.setitem(sys.modules, "torch._dynamo.source", ModuleType("torch._dynamo.source"))
    with refused("torch-internals", site="torch._dynamo.source.AttrSource"):
        internals.require_internals()


def test_inputs_say_where_they_come_from() -> None:
    model = Mlp().eval()
    ((_, inputs, owners),) = seen(model, batches(1)[0])
    sources = {each.source: each.static for each in inputs}
    assert sources["L['x']"] is False
    assert sources["L['self']._modules['first']._parameters['weight']"] is True
    by_source = {each.source: owner for each, owner in zip(inputs, owners, strict=True)}
    assert by_source["L['self']._modules['first']._parameters['weight']"] is model.first
    assert by_source["L['x']"] is None
    x = next(each for each in inputs if each.source == "L['x']")
    assert x.evaluate({"x": 3}, {}) == 3
    with pytest.raises(LookupError, match=r"L\['x'\]: KeyError"):
        x.evaluate({}, {})


def test_frames_know_their_place() -> None:
    parts = seen(Branch().eval(), batches(1)[0] + 1)
    frames = [frame for frame, _, _ in parts]
    assert [frame.resumes for frame in frames] == [False, True]
    assert [frame.outermost for frame in frames] == [True, False]
    assert "behind a graph break in forward (" in frames[1].where
    torch.compiler.reset()
    again = [frame for frame, _, _ in seen(Branch().eval(), batches(1)[0] + 1)]
    assert [frame.code for frame in again] == [frame.code for frame in frames]


def test_a_frame_outside_of_dynamo() -> None:
    with refused("outside-dynamo", internals.OutsideDynamo, fix="torch.compile"):
        internals.current_frame()


def test_floats_come_as_tensors_until_they_are_specialized() -> None:
    class Scales(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = 0.375

        def forward(self, x: Tensor) -> Tensor:
            return x * self.factor

    sources: list[list[str]] = []

    def backend(module: GraphModule, _: list[Any]) -> Callable[..., Any]:
        sources.append([each.source for each in internals.graph_inputs(module)])
        internals.specialize_floats(module)
        return module.forward

    x = batches(1)[0]
    assert torch.equal(torch.compile(Scales(), backend=backend, dynamic=True)(x), x * 0.375)
    assert ["L['self'].factor" in each for each in sources] == [True, False]


def test_the_compile_lock_is_reentrant_and_dynamos() -> None:
    from torch._dynamo import convert_frame

    assert internals.compile_lock() is convert_frame.compile_lock
    with internals.compile_lock(), internals.compile_lock():
        pass
