from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import nn
from torch.fx import GraphModule

from quantfx.passes.errors import PassError, PipelineError
from quantfx.passes.graph.editor import Editor
from quantfx.passes.pipeline.base import Context, Pass, PassResult
from quantfx.passes.pipeline.failed_run import failed_run_of
from quantfx.passes.pipeline.graph_pass import GraphPass
from quantfx.passes.pipeline.pipeline import Pipeline
from tests.refusals import refused
from tests.unchecked import capture

Returned = Callable[[GraphModule], Any]


@dataclass(frozen=True)
class Returns(Pass):
    """A pass of somebody who has not read what ``run`` returns."""

    made: Returned

    name: ClassVar[str] = "returns"

    def run(self, module: GraphModule, context: Context) -> PassResult:
        returned: PassResult = self.made(module)
        return returned


@dataclass(frozen=True)
class Rewrites(GraphPass):
    """The same with ``rewrite``."""

    made: Callable[[], Any]

    name: ClassVar[str] = "rewrites"

    def rewrite(self, editor: Editor, context: Context) -> int:
        returned: int = self.made()
        return returned


class Nameless(Pass):
    def run(self, module: GraphModule, context: Context) -> PassResult:
        return PassResult()


def graph() -> GraphModule:
    return capture(nn.ReLU().eval(), (torch.ones(3),))


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda module: None, "run returned None, not a PassResult"),
        (lambda module: module, "run returned a GraphModule, not a PassResult"),
        (lambda module: PassResult, "run returned the class PassResult"),
        (PassResult, "remarks is a GraphModule"),
        (lambda module: PassResult("done"), "remarks is 'done'"),  # type: ignore[arg-type]
        (lambda module: PassResult(("done",)), "holds 'done'"),  # type: ignore[arg-type]
        (lambda module: PassResult((), module), "stats is a GraphModule"),
        (lambda module: PassResult((), {"done": None}), r"stats\['done'\] is None"),  # type: ignore[dict-item]
    ],
)
def test_what_run_returns_is_checked(made: Returned, says: str) -> None:
    fix = "return PassResult("
    with refused("pass-result: returns", PassError, fix=fix, says=says) as caught:
        Pipeline((Returns(made),)).run(graph())
    assert str(caught.value).startswith("returns failed: ")
    assert failed_run_of(caught.value) is None  # no graph is smaller than this


@pytest.mark.parametrize(
    ("made", "says"),
    [(lambda: None, "rewrite returned None"), (PassResult, "rewrite returned a PassResult")],
)
def test_what_rewrite_returns_is_checked(made: Callable[[], Any], says: str) -> None:
    with refused("pass-result: rewrites", PassError, fix="how many", says=says):
        Pipeline((Rewrites(made),)).run(graph())


def test_a_list_of_remarks_and_a_truth_value_are_taken() -> None:
    Pipeline((Returns(lambda module: PassResult([])),)).run(graph())  # type: ignore[arg-type]
    Pipeline((Rewrites(lambda: True),)).run(graph())


def test_a_pass_without_a_name_is_refused_when_the_pipeline_is_made() -> None:
    with refused("pass-name: Nameless", PipelineError, fix="name: ClassVar[str] = "):
        Pipeline((Nameless(),))
    Nameless.name = ""
    with refused("pass-name: Nameless", PipelineError):
        Pipeline((Nameless(),))


@pytest.mark.parametrize(
    ("given", "says", "fix"),
    [(Nameless, "the class Nameless", r"Nameless()"), ("share", "'share'", "Pipeline.parse")],
)
def test_what_is_no_pass_is_refused_when_the_pipeline_is_made(
    given: Any, says: str, fix: str
) -> None:
    with refused("not-a-pass", PipelineError, says=says, fix=fix):
        Pipeline((given,))
