"""Methods of a model that call another module in its place."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from quantfx.calling_model import CallingModel


class Base(nn.Module):
    def twice(self, x: Tensor) -> Tensor:
        made: Tensor = self(self(x))
        return made


class Model(Base):
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

    @classmethod
    def made(cls) -> Model:
        return cls()


class Negated(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        made: Tensor = -self.model(*args, **kwargs)
        return made


def test_a_method_calls_the_stand_in_and_has_all_else_of_the_model() -> None:
    model = Model().eval()
    negated = Negated(model)
    calling = CallingModel(model, negated)
    x = torch.randn(3, 2)
    bias = model.part.bias
    torch.testing.assert_close(calling.bound(model.twice)(x), negated(negated(x)) + bias)
    torch.testing.assert_close(model.twice(x), model(model(x)) + bias)
    assert model.calls == 2  # what a method writes is written to the model
    assert type(model) is Model


def test_what_is_no_method_of_this_model_stays() -> None:
    model = Model()
    calling = CallingModel(model, Negated(model))
    for each in (model.calls, model.part, model.part.forward, model.made, torch.relu):
        assert calling.bound(each) == each
