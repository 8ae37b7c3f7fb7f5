"""Names that vanished lead to what stands in their place, and that says what went into it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule

from quantfx.passes.graph.remark import Remark
from quantfx.passes.pipeline.record import PassRecord, set_records
from quantfx.passes.report.explain.history import steps_back
from quantfx.passes.report.explain.trail import Trail
from tests.passes.report.explain.explained import explained, folded


def test_a_batch_norm_leads_to_the_convolution_that_it_was_folded_into() -> None:
    [gone] = folded().explain("norm")
    assert (gone.node, gone.kind, gone.standing) == ("batch_norm", "vanished", "gone")
    assert gone.module_class == "BatchNorm2d"
    [step] = gone.history
    assert (step.by, step.what, step.other) == ("fold-batch-norm", "became", "conv2d")
    assert "into conv2d" in step.text
    assert "conv(x, w * s" in step.text, "the rule of the pass"
    assert "which is int8 by template conv2d_unary" in gone.verdict
    [layer] = folded().explain("conv")
    assert [(step.by, step.what, step.other) for step in layer.history] == [
        ("fold-batch-norm", "absorbed", "batch_norm")
    ]


def test_a_dropout_and_a_constant() -> None:
    [gone] = folded().explain("drop")
    assert [(each.by, each.other) for each in gone.history] == [("remove-dropout", "relu")]
    [weight] = folded().explain("conv.weight")
    assert weight.kind == "vanished"
    assert weight.history[-1].other == "conv_weight_s8"
    [mean] = folded().explain("norm.running_mean")
    assert [(each.by, each.other) for each in mean.history] == [("fold-batch-norm", "conv2d")]
    [counter] = folded().explain("norm.num_batches_tracked")
    assert [(each.what, each.other) for each in counter.history] == [("removed", "")]
    assert "remove-dead-code removed it" in counter.verdict


def test_computed_weights_lead_to_the_stored_one() -> None:
    class Normalized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4, 8) * torch.arange(1, 9))

        def forward(self, x: Tensor) -> Tensor:
            scaled = self.weight / self.weight.norm(dim=1, keepdim=True)
            return nn.functional.linear(x, scaled)

    result = explained(Normalized, torch.randn(2, 8))
    [division] = result.explain("div")
    assert [each.by for each in division.history] == ["fold-constants", "tidy"]
    assert division.history[0].other == "weight_folded"
    [norm] = result.explain("linalg_vector_norm")
    assert norm.history[0].other == "weight_folded", "it is a part of what was folded"


def test_another_spelling_is_no_other_operator() -> None:
    class Flattened(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Sequential(nn.Linear(8, 4))

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.head(x.view(2, 8))
            return y

    result = explained(Flattened, torch.randn(2, 2, 4))
    [view] = result.explain("view")
    assert view.history[0].by == "normalize-ops"
    [written] = result.explain(view.history[0].other)
    assert [(each.what, each.other) for each in written.history] == [("made", "view")]
    assert written.reason == "it moves values and computes nothing"
    assert not written.remedies


def test_modules_that_left_no_operator() -> None:
    [same] = folded().explain("same")
    assert (same.kind, same.module_class, same.node) == ("silent", "Identity", "")
    assert "returns what it is given" in same.verdict
    [unused] = folded().explain("unused")
    assert unused.kind == "silent"
    assert "does not call it" in unused.verdict


def test_a_remark_that_begins_with_its_pass_names_it_once() -> None:
    module = GraphModule(nn.Module(), Graph())
    remark = Remark("missed", "", "conv2d", "round-weights: nothing gains on held-out inputs")
    set_records(module, (PassRecord("round-weights", 0.0, False, (remark,), {}),))
    [step] = steps_back(Trail(module), "conv2d", made_by="", kind="operator", reason="")
    assert (step.by, step.text) == ("round-weights", "nothing gains on held-out inputs")
