"""Multiply-accumulates agree with torch's own counter, which needs real tensors to see them all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim
from torch.fx import Node
from torch.utils.flop_counter import FlopCounterMode

from quantfx.passes.graph.graphs import all_graphs
from quantfx.passes.report.macs import macs_of
from tests.export_cases import CASES as EXPORT_CASES
from tests.export_cases import Net
from tests.foreign_operators import Experts
from tests.unchecked import capture

R = torch.randn


def nodes(model: nn.Module, *inputs: Tensor, **options: Any) -> list[Node]:
    module = capture(model.eval(), inputs, **options)
    graphs = [each.graph for _, each in all_graphs(module)]
    return [node for graph in graphs for node in graph.nodes if node.op == "call_function"]


def total(model: nn.Module, *inputs: Tensor, **options: Any) -> int:
    counts = [macs_of(node) for node in nodes(model, *inputs, **options)]
    assert None not in counts
    return sum(count or 0 for count in counts)


class Function(nn.Module):
    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


QUERY = R(2, 4, 6, 8)
BY_TORCH: dict[str, tuple[nn.Module, tuple[Tensor, ...]]] = {
    "conv1d, groups": (nn.Conv1d(4, 8, 3, groups=2), (R(2, 4, 10),)),
    "conv2d, stride, dilation": (nn.Conv2d(3, 8, 3, 2, 1, 2), (R(2, 3, 11, 9),)),
    "conv2d, same": (nn.Conv2d(3, 8, 3, padding="same"), (R(1, 3, 5, 5),)),
    "conv3d": (nn.Conv3d(2, 4, (1, 2, 3)), (R(1, 2, 4, 5, 6),)),
    "conv_transpose1d": (nn.ConvTranspose1d(4, 6, 3, 2), (R(2, 4, 7),)),
    "conv_transpose2d, groups": (nn.ConvTranspose2d(4, 6, 3, 2, groups=2), (R(2, 4, 5, 5),)),
    "conv_transpose3d": (nn.ConvTranspose3d(2, 3, 2), (R(1, 2, 3, 4, 5),)),
    "linear": (nn.Linear(8, 4), (R(2, 3, 8),)),
    "mm": (Function(torch.mm), (R(3, 4), R(4, 5))),
    "addmm": (Function(torch.addmm), (R(5), R(3, 4), R(4, 5))),
    "bmm": (Function(torch.bmm), (R(2, 3, 4), R(2, 4, 5))),
    "baddbmm": (Function(torch.baddbmm), (R(2, 3, 5), R(2, 3, 4), R(2, 4, 5))),
    "matmul, broadcast": (Function(torch.matmul), (R(2, 1, 3, 4), R(6, 4, 5))),
    "einsum": (Function(lambda a, b: torch.einsum("bij,bkj->bik", a, b)), (R(2, 3, 4), R(2, 5, 4))),
    "einsum, dots": (
        Function(lambda a, b: torch.einsum("...ij, jk", a, b)),
        (R(2, 6, 3, 4), R(4, 5)),
    ),
    "tensordot": (
        Function(lambda a, b: torch.tensordot(a, b, dims=([1, 2], [0, 1]))),
        (R(2, 3, 4), R(3, 4, 5)),
    ),
    "attention, math": (
        Function(F.scaled_dot_product_attention),
        (QUERY, R(2, 4, 7, 8), R(2, 4, 7, 5)),
    ),
}


@pytest.mark.parametrize("name", BY_TORCH)
def test_counts_are_those_of_torch(name: str) -> None:
    model, inputs = BY_TORCH[name]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(*inputs)
    expected = counter.get_total_flops()
    assert expected
    assert 2 * total(model, *inputs) == expected


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "batch_first": True}])
def test_recurrent_layers_count_as_torch_unrolls_them(
    kind: type[nn.RNNBase], options: dict[str, bool]
) -> None:
    def make() -> nn.Module:
        layer: nn.Module = kind(8, 16, num_layers=2, **options)  # type: ignore[arg-type]
        return layer.eval()

    class First(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = make()

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.layer(x)[0]
            return y

    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        make()(torch.empty(5, 2, 8))
    assert 2 * total(First(), R(5, 2, 8)) == counter.get_total_flops()


def test_what_torch_does_not_see() -> None:
    cases: list[tuple[Callable[..., Tensor], tuple[Tensor, ...], int]] = [
        (torch.mv, (R(3, 4), R(4)), 12),
        (torch.dot, (R(4), R(4)), 4),
        (torch.inner, (R(3, 4), R(5, 4)), 60),
        (torch.addmv, (R(3), R(3, 4), R(4)), 12),
        (torch.addbmm, (R(3, 5), R(2, 3, 4), R(2, 4, 5)), 120),
        (torch.matmul, (R(2, 3, 4), R(4)), 24),
        (F.bilinear, (R(2, 3), R(2, 4), R(5, 3, 4)), 120),
        (
            lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True),
            (QUERY, R(2, 2, 7, 8), R(2, 2, 7, 8)),
            2 * 4 * 6 * 7 * 16,
        ),
        (lambda x: x.softmax(-1) * x.exp(), (R(3, 4),), 0),
    ]
    for function, inputs, expected in cases:
        assert total(Function(function), *inputs) == expected


def test_cells() -> None:
    cell = nn.LSTMCell(8, 16)
    model = Net(lambda layer, x: layer(x)[0], cell)
    assert total(model, R(3, 8)) == 3 * (64 * 8 + 64 * 16)


def test_free_sizes_count_as_in_the_example() -> None:
    model = nn.Linear(8, 4)
    assert total(model, R(6, 8), dynamic_shapes=({0: Dim("rows")},)) == 6 * 32


def test_both_branches_count() -> None:
    case = EXPORT_CASES["cond"]
    model = case.make()
    weights = [p.numel() for p in model.parameters() if p.dim() == 2]
    rows = case.inputs[0].shape[0]
    if len(weights) != 2:
        pytest.fail("the case has other layers than two linears: count anew")
    assert total(model, *case.inputs) == rows * sum(weights)


def test_what_cannot_be_counted_is_unknown() -> None:
    [expert, _] = nodes(Experts(), R(8, 64))
    assert macs_of(expert) is None

    def selected(layer: nn.Module, x: Tensor) -> Tensor:
        chosen: Tensor = layer(x[x.sum(-1) > 0])
        return chosen

    found = nodes(Net(selected, nn.Linear(8, 4)), R(6, 8))
    [linear] = [node for node in found if node.target is torch.ops.aten.linear.default]
    assert macs_of(linear) is None
    three = Function(lambda a, b, c: torch.einsum("ij,jk,kl->il", a, b, c))
    assert [macs_of(node) for node in nodes(three, R(2, 3), R(3, 4), R(4, 5))] == [None]
    dots = Function(lambda a, b, c: torch.linalg.multi_dot([a, b, c]))
    assert [macs_of(node) for node in nodes(dots, R(2, 3), R(3, 4), R(4, 5))] == [None]
