"""Train and eval mode of exported models."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from quantfx import compat
from quantfx.compat.exported.export_utils import ModeError
from tests.compat.sample import aten, find, x86
from tests.refusals import refused

X = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(3, eps=0.1, momentum=0.3)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(self.bn(x), 0.5, training=self.training)


def exported(training: bool) -> GraphModule:
    module = torch.export.export(Net().train(training), (X,)).module()
    assert isinstance(module, GraphModule)
    return module


def modes(module: GraphModule) -> set[object]:
    dropout, norm = find(module, aten.dropout.default)[0], find(module, aten.batch_norm.default)[0]
    return {dropout.args[2], norm.args[5]}


def test_moving_switches_both_ways_and_keeps_the_other_arguments() -> None:
    module = exported(training=True)
    assert modes(module) == {True}
    assert compat.move_exported_model_to_eval(module) is module
    assert modes(module) == {False}
    torch.testing.assert_close(module(X), X / (1 + 0.1) ** 0.5)
    compat.move_exported_model_to_train(module)
    assert modes(module) == {True}
    assert find(module, aten.batch_norm.default)[0].args[6:8] == (0.3, 0.1)


def test_the_methods_work_once_allowed() -> None:
    module = compat.allow_exported_model_train_eval(exported(training=True))
    module.eval()
    assert modes(module) == {False}
    module.train()
    assert modes(module) == {True}
    module.train(False)
    assert modes(module) == {False}


def test_prepared_and_converted_models_forbid_the_methods() -> None:
    module = compat.prepare_pt2e(exported(training=False), x86())
    for each in (module, compat.convert_pt2e(module)):
        for method in (each.train, each.eval):
            with refused("baked-mode", ModeError, fix="move_exported_model_to_train"):
                method()
            with pytest.raises(NotImplementedError):
                method()
