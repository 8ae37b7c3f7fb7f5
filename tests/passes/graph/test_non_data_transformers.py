"""Masks, positions and angles of published transformers are never observed.

Checked from outside: under other weights, every observed activation has other values. A mask, a
position or what else comes from integers and shapes alone would keep its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node

from quantfx.backends.backend import Backend
from quantfx.backends.x86 import x86
from quantfx.passes.config.config import Config
from quantfx.passes.observers.observer import Observer
from quantfx.passes.report.contract import find_skipped, planned_matches
from quantfx.tools.models.bert import BertConfig, bert, bert_inputs
from tests import unchecked
from tests.models.decoders import rotary_attention, tiny_gpt, tiny_opt

TOKENS = torch.tensor([[3, 1, 4, 1, 5]])
NOT_DATA = " is not data: it comes from integers, masks or shapes only"
BERT = BertConfig(layers=1, hidden=32, heads=2, vocabulary=50, positions=16)
BERT_TOKENS, BERT_MASK = bert_inputs(BERT, 2, 8)


@dataclass(frozen=True)
class Case:
    """A model, its inputs, why its masks and positions stay float, and what is quantized beside.

    Attributes:
        make: Builds the model.
        inputs: Integers, and masks.
        reasons: Node -> why it stays float, of those that read a mask or a position.
        planned: Operator -> matches.
    """

    make: Callable[[], nn.Module]
    inputs: tuple[Tensor, ...]
    planned: dict[str, int]
    reasons: dict[str, str] = field(default_factory=dict)


CASES = {
    # The cumulative sum of the mask, times the mask, picks rows of a weight, and is folded with it.
    "opt": Case(tiny_opt, (TOKENS,), {"embedding": 1, "linear": 7}),
    # mul: the scores, times the causal mask.
    "gpt_one_head": Case(
        lambda: tiny_gpt(1),
        (TOKENS,),
        {"embedding": 1, "linear": 5, "matmul": 2, "mul": 3},
        {"mul": f"causal_folded{NOT_DATA}"},
    ),
    "gpt_two_heads": Case(
        lambda: tiny_gpt(2),
        (TOKENS,),
        {"embedding": 1, "linear": 5, "matmul": 2, "mul": 3},
        {"mul": "same_shape: div has shape [1, 2, 5, 5], causal_folded [1, 1, 5, 5]"},
    ),
    # mul to mul_3: queries and keys times cosine and sine of frequencies times positions.
    "rotary": Case(
        rotary_attention,
        (TOKENS,),
        {"embedding": 1, "linear": 3, "matmul": 2},
        {
            "mul": f"frequencies_folded{NOT_DATA}",
            "mul_1": f"frequencies_folded_1{NOT_DATA}",
            "mul_2": f"frequencies_folded{NOT_DATA}",
            "mul_3": f"frequencies_folded_1{NOT_DATA}",
        },
    ),
    "bert": Case(
        lambda: bert(BERT), (BERT_TOKENS, BERT_MASK), {"embedding": 2, "linear": 7, "matmul": 2},
        {"mul": "mul.other is -3.4028234663852886e+38, not a tensor"},
    ),
    "bert_float_mask": Case(
        lambda: bert(BERT), (BERT_TOKENS, BERT_MASK.float()),
        {"embedding": 2, "linear": 7, "matmul": 2},
    ),
}  # fmt: skip


def backend(case: Case) -> Backend:
    """x86, with matrix products where the model has some: attention and rotary angles."""
    config = Config().op("matmul", "static") if "matmul" in case.planned else Config()
    return x86().with_config(config)


def prepare(case: Case, model: nn.Module) -> GraphModule:
    return backend(case).prepare(unchecked.capture(model, case.inputs))


class Values(Interpreter):
    """Keeps the value of every float tensor, by node name."""

    def __init__(self, module: GraphModule, inputs: tuple[Tensor, ...]) -> None:
        super().__init__(module)
        self.of: dict[str, Tensor] = {}
        with torch.no_grad():
            self.run(*inputs)

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor) and value.is_floating_point():
            self.of[n.name] = value.clone()
        return value


def unmoved(case: Case) -> tuple[set[str], set[str]]:
    """Return the observed and the unobserved float tensors that no weight decides."""
    model = case.make()
    before = prepare(case, model)
    one = Values(before, case.inputs).of
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.25).add_(0.05)
    after = prepare(case, model)
    assert str(before.graph) == str(after.graph)
    two = Values(after, case.inputs).of
    same = {name for name in one if torch.equal(one[name], two[name])}
    observed = {
        node.all_input_nodes[0].name
        for node in before.graph.nodes
        if node.op == "call_module" and isinstance(before.get_submodule(str(node.target)), Observer)
    }
    assert observed
    return same & observed, same - observed


@pytest.mark.parametrize("name", CASES)
def test_every_observed_tensor_follows_the_weights(name: str) -> None:
    observed, floats = unmoved(CASES[name])
    assert observed == set()
    assert floats, "there are masks, positions or angles to keep away from"


@pytest.mark.parametrize("name", CASES)
def test_the_report_says_why(name: str) -> None:
    case = CASES[name]
    module = prepare(case, case.make())
    kinds = [match.annotation.kind for match in planned_matches(module)]
    assert {kind: kinds.count(kind) for kind in kinds} == case.planned
    reasons = {remark.node: remark.message for remark in find_skipped(module, backend(case).recipe)}
    assert {node: reasons[node] for node in case.reasons} == case.reasons
    said = {node for node, reason in reasons.items() if reason.endswith(NOT_DATA)}
    assert said == {node for node, reason in case.reasons.items() if reason.endswith(NOT_DATA)}
