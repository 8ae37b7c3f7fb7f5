"""Where a pass can be left out is told of the pipeline that has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.fx import GraphModule

import quantfx
from quantfx import Pipeline
from quantfx.passes.pipeline.base import Context, Pass, PassResult
from quantfx.passes.pipeline.permits import Permit
from quantfx.result import Result


@dataclass(frozen=True)
class Spoil(Pass):
    """Does harm wherever it runs, and can be left out."""

    name: ClassVar[str] = "spoil"
    optional: ClassVar[bool] = True

    def run(self, module: GraphModule, context: Context) -> PassResult:
        module.meta["spoilt"] = True
        return PassResult()


def check(result: Result) -> bool:
    return "spoilt" not in Pipeline((Spoil(),)).run(result.quantized).meta


def test_a_pass_that_the_check_itself_runs_is_neither_of_the_backend_nor_of_inductor() -> None:
    x = torch.randn(2, 4)
    found = quantfx.bisect(nn.Linear(4, 4).eval(), x, check=check, batches=[x])
    assert found.culprit.permit == Permit("spoil")
    assert found.culprit.remedy == "leave 'spoil' out of the pipeline that the check runs"
    assert found.config == ""
