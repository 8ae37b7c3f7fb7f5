"""Position ids, masks and shape arithmetic are never observed; real activations beside them are."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

import quantfx
from quantfx.backends.x86 import x86
from quantfx.passes.contract import planned_matches, skipped
from quantfx.tools.bert import BertConfig, bert, bert_inputs

TOKENS = torch.tensor([[3, 1, 4, 1], [5, 9, 2, 6]])


class TinyOPT(nn.Module):
    """Positions as OPT computes them: a cumulative sum of a float mask, times that mask."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(16, 8)
        self.positions = nn.Embedding(8, 8)
        self.mix = nn.Linear(8, 8)
        self.register_buffer("gate", torch.ones(2, 4, 8))

    def forward(self, tokens: Tensor) -> Tensor:
        mask = torch.ones(tokens.shape)
        positions = (mask.cumsum(1) * mask).long() - 1
        x = self.tokens(tokens) + self.positions(positions)
        return self.mix(x * self.gate) * x


class Timestep(nn.Module):
    """Sinusoidal embedding of arange, read by a linear."""

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Linear(8, 8)
        self.data = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        angles = torch.arange(8, dtype=torch.float32) * 0.1
        return self.data(x) + self.time(torch.sin(angles))


def prepared(model: nn.Module, *inputs: Tensor) -> GraphModule:
    return x86().prepare(quantfx.capture(model.eval(), inputs), strict=False)


def observed(module: GraphModule) -> set[str]:
    return {node.all_input_nodes[0].name for node in module.graph.nodes if node.op == "call_module"}


def test_cumsum_and_ones_are_not_observed() -> None:
    module = prepared(TinyOPT(), TOKENS)
    assert not {name for name in observed(module) if name.startswith(("ones", "cumsum", "gate"))}
    reasons = {remark.node: remark.message for remark in skipped(module, x86().recipe)}
    assert reasons["mul"] in (
        "cumsum is not data: it comes from integers, masks or shapes only",
        "ones is not data: it comes from integers, masks or shapes only",
    )
    assert reasons["mul_1"] == "gate is not data: it comes from integers, masks or shapes only"
    assert [m.annotation.template for m in planned_matches(module)] == ["linear", "mul"]


def test_a_linear_on_arange_stays_float() -> None:
    module = prepared(Timestep(), torch.randn(2, 8))
    assert [m.module for m in planned_matches(module)] == ["data"]


def test_integer_ids_and_masks_of_bert_are_not_observed() -> None:
    config = BertConfig(layers=1, hidden=32, heads=2, vocabulary=50, positions=16)
    inputs = bert_inputs(config, 2, 8)
    module = prepared(bert(config), *inputs)
    floats = [node for node in module.graph.nodes if node.op == "call_module"]
    assert floats
    for node in floats:
        assert node.meta["val"].is_floating_point()
        assert not any(p.op == "placeholder" for p in node.all_input_nodes)


def test_what_a_branch_reads_is_data_if_its_operand_is() -> None:
    from tests.export_cases import CASES

    case = CASES["cond"]
    module = x86().prepare(quantfx.capture(case.make(), case.inputs))
    assert len(planned_matches(module)) == 2
