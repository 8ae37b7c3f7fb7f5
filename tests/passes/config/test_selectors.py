from __future__ import annotations

import torch
from torch import Tensor, nn

from quantfx.passes.config.selectors import (
    CallSelector,
    CallSite,
    Everything,
    ModuleSelector,
    OpSelector,
    Selector,
    TensorSelector,
    TypeSelector,
    Where,
    call_sites,
)
from quantfx.patterns.loader import load
from tests.export_cases import CASES
from tests.unchecked import capture


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])  # a list is never called

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.layers[0](x), self.layers[1](x).relu()], 1)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Block())
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(x)) * 2.0


VOCABULARY = load("pt2e").vocabulary


def sites() -> list[CallSite]:
    return call_sites(capture(Model().eval(), (torch.randn(2, 4),)), VOCABULARY)


def selected(selector: Selector) -> str:
    return " ".join(site.name for site in sites() if selector.selects(site))


def test_modules_select_all_inside_and_lists_are_modules_too() -> None:
    assert selected(ModuleSelector("blocks")) == "linear linear_1 relu cat"
    assert selected(ModuleSelector("blocks.0.layers")) == "linear linear_1"
    assert selected(ModuleSelector("blocks.0.layers.1")) == "linear_1"
    assert selected(ModuleSelector("blocks.*.layers.*")) == "linear linear_1"
    assert selected(ModuleSelector("block")) == ""
    assert selected(ModuleSelector("*.0")) == "linear linear_1 relu cat"


def test_types_by_qualified_and_short_name() -> None:
    assert selected(TypeSelector("Linear")) == "linear linear_1 linear_2"
    assert selected(TypeSelector("torch.nn.modules.linear.Linear")) == selected(
        TypeSelector("Linear")
    )
    assert selected(TypeSelector("Block")) == "linear linear_1 relu cat"
    assert selected(TypeSelector(f"{Block.__module__}.Block")) == selected(TypeSelector("Block"))


def test_operators_by_word_and_overload() -> None:
    assert selected(OpSelector("linear")) == "linear linear_1 linear_2"
    assert selected(OpSelector("aten.linear.default")) == "linear linear_1 linear_2"
    assert selected(OpSelector("aten.linear")) == ""


def test_calls_and_tensors() -> None:
    assert selected(CallSelector("linear_1")) == "linear_1"
    assert selected(TensorSelector("linear_1.input")) == "linear_1"
    assert selected(TensorSelector("linear*.weight")) == "linear linear_1 linear_2"
    assert selected(TensorSelector("cat.tensors.1")) == "cat"
    assert selected(TensorSelector("cat.tensors.2")) == ""
    assert selected(TensorSelector("mul.other")) == "", "2.0 is no tensor"
    assert TensorSelector("linear*.weight").selects_tensor("linear_2.weight")
    assert not TensorSelector("linear*.weight").selects_tensor("linear_2.input")


def test_functions_and_everything() -> None:
    assert selected(Where(lambda node: "relu" in node.name)) == "relu"
    assert selected(Everything()).split() == [site.name for site in sites()]


def test_nested_graphs_are_part_of_the_name() -> None:
    case = CASES["cond"]
    found = call_sites(capture(case.make(), case.inputs), VOCABULARY)
    nested = [site.name for site in found if site.graph]
    assert "true_graph_0/linear" in nested
    assert [s.name for s in found if CallSelector("true_graph_0/linear").selects(s)] == [
        "true_graph_0/linear"
    ]


def test_what_is_more_particular_has_a_higher_rank() -> None:
    ordered: list[Selector] = [
        Everything(),
        OpSelector("conv2d"),
        ModuleSelector("a.*"),
        ModuleSelector("a.b"),
        TensorSelector("*.input"),
        CallSelector("conv2d"),
        TensorSelector("conv2d.input"),
    ]
    ranks = [selector.rank for selector in ordered]
    assert ranks == sorted(set(ranks))
    assert OpSelector("a").rank == TypeSelector("a").rank
    assert CallSelector("a").rank == Where(bool).rank
    assert [str(selector) for selector in ordered[:3]] == ["all", "op='conv2d'", "module='a.*'"]
