"""Methods of a model that call another module in its place."""

from __future__ import annotations

import copy
import gc
import inspect
import io
import weakref
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

import quantfx
from quantfx.calling_model import ModelMethods


class Base(nn.Module):
    kinds: ClassVar[list[str]] = []

    def __init_subclass__(cls, *, tag: str) -> None:
        cls.kinds.append(tag)

    def twice(self, x: Tensor) -> Tensor:
        made: Tensor = self(self(x))
        return made


class Model(Base, tag="model"):
    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Linear(2, 2)
        self.calls = 0

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        made: Tensor = self.part(x) * scale
        return made

    def twice(self, x: Tensor) -> Tensor:
        assert isinstance(self, Model)
        assert list(inspect.signature(self.forward).parameters) == ["x", "scale"]
        self.calls += 1
        return super().twice(x) + self.part.bias

    def itself(self) -> Model:
        return self

    def copied(self) -> Model:
        return copy.deepcopy(self)

    def stored(self, file: Any) -> None:
        torch.save(self, file)

    @classmethod
    def made(cls) -> Model:
        return cls()


class Slotted(nn.Module):
    __slots__ = ("factor",)

    def scaled(self, x: Tensor) -> Tensor:
        made: Tensor = self(x) * self.factor
        return made

    def forward(self, x: Tensor) -> Tensor:
        return x


class Negated(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        made: Tensor = -self.model(*args, **kwargs)
        return made


def test_a_method_calls_the_stand_in_and_has_all_else_of_the_model() -> None:
    model = Model().eval()
    negated, methods = Negated(model), ModelMethods()
    x = torch.randn(3, 2)
    bias = model.part.bias
    found = methods.bound(model.twice, model, negated)(x)
    torch.testing.assert_close(found, negated(negated(x)) + bias)
    torch.testing.assert_close(model.twice(x), model(model(x)) + bias)
    assert model.calls == 2  # what a method writes is written to the model
    assert type(model) is Model
    assert Base.kinds == ["model"], "the subclass is not registered"


def test_what_is_no_method_of_this_model_stays() -> None:
    model = Model()
    negated, methods = Negated(model), ModelMethods()
    for each in (model.calls, model.part, model.part.forward, model.made, torch.relu):
        assert methods.bound(each, model, negated) == each
    slotted: Any = Slotted()
    slotted.factor = 3.0  # in no __dict__
    assert methods.bound(slotted.scaled, slotted, negated)(torch.ones(1)) == 3


def test_a_model_that_a_method_hands_out_is_no_stranger() -> None:
    model = Model()
    negated, methods = Negated(model), ModelMethods()
    assert methods.bound(model.itself, model, negated)() is negated
    copied = methods.bound(model.copied, model, negated)()
    assert type(copied) is Model
    x = torch.randn(3, 2)
    torch.testing.assert_close(copied(x), model(x))
    assert copied.part.weight is not model.part.weight
    file = io.BytesIO()
    methods.bound(model.stored, model, negated)(file)
    file.seek(0)
    assert type(torch.load(file, weights_only=False)) is Model


def test_nothing_waits_for_the_garbage_collector() -> None:
    model = Model().eval()
    auto: Any = quantfx.auto(model)
    auto.itself()
    gc.disable()
    try:
        gone = weakref.ref(auto), weakref.ref(model)
        del auto, model
        assert [each() for each in gone] == [None, None]
    finally:
        gc.enable()
