"""Each pass of the canonicalize pipeline: what it rewrites and what it must leave alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule

from quantfx.passes.capture.canonicalize import CANONICALIZE
from quantfx.passes.graph.graphs import all_graphs
from quantfx.passes.graph.remark import Remark
from quantfx.passes.pipeline.base import Pass
from quantfx.passes.pipeline.pipeline import Pipeline
from quantfx.passes.pipeline.record import remarks_of
from quantfx.patterns.schema import argument_value
from tests.export_cases import CASES, IMAGE, Net
from tests.unchecked import capture

NOTHING = Pipeline(())


def ops(module: GraphModule) -> Counter[str]:
    return Counter(
        str(node.target).removeprefix("aten.")
        for _, graph_module in all_graphs(module)
        for node in graph_module.graph.nodes
        if node.op == "call_function"
    )


def both(
    body: Callable[..., Any], *layers: nn.Module, only: str | None = None
) -> tuple[GraphModule, GraphModule]:
    """Return the exported graph as it came and canonicalized, having checked they agree."""
    model = Net(body, *layers).eval()
    raw = capture(model, (IMAGE,), pipeline=NOTHING)
    passes: tuple[Pass, ...] = tuple(p for p in CANONICALIZE if only in (None, p.name))
    canonical = Pipeline(passes).run(raw)
    with torch.no_grad():
        torch.testing.assert_close(canonical(IMAGE), model(IMAGE))
    return raw, canonical


def test_dropout_goes_in_eval_and_stays_in_training() -> None:
    raw, canonical = both(lambda d, x: d(x) + F.dropout(x, 0.3, training=False), nn.Dropout(0.3))
    assert ops(raw)["dropout.default"] == 2
    assert ops(canonical) == {"add.Tensor": 1}
    kept = capture(Net(lambda x: F.dropout(x, 0.3, training=True)).eval(), (IMAGE,))
    [node] = [n for n in kept.graph.nodes if n.op == "call_function"]
    assert node.args[1:] == (0.3, True)
    never = capture(Net(lambda x: F.dropout(x, 0.0, training=True).relu()).eval(), (IMAGE,))
    assert ops(never) == {"relu.default": 1}


def test_in_place_chains_unfold() -> None:
    def body(c: nn.Module, x: Tensor) -> Tensor:
        y = c(x)
        y += x
        return y.relu_().mul_(2.0) - y  # y is what relu_ and mul_ left

    raw, canonical = both(body, nn.Conv2d(4, 4, 1))
    assert {"add_.Tensor", "relu_.default", "mul_.Tensor"} <= ops(raw).keys()
    assert ops(canonical) == {"conv2d.default": 1, "add.Tensor": 1, "relu.default": 1,
                              "mul.Tensor": 1, "sub.Tensor": 1}  # fmt: skip


def test_writes_that_others_see_stay_in_place() -> None:
    def on_view(c: nn.Module, x: Tensor) -> Tensor:
        y = c(x)
        y[:, 0] += 1
        return y

    _, canonical = both(on_view, nn.Conv2d(4, 4, 1))
    assert ops(canonical)["add_.Tensor"] == 1
    remark = next(remarks_of(canonical, Remark, by="functionalize"))
    assert "is a view of" in remark.message

    def with_view(c: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        y = c(x)
        view = y.view(-1)
        return y.relu_(), view

    _, canonical = both(with_view, nn.Conv2d(4, 4, 1))
    assert ops(canonical)["relu_.default"] == 1


def test_writes_to_inputs_stay_in_place() -> None:
    model = Net(lambda x: x.add_(1.0)).eval()
    canonical = capture(model, (IMAGE.clone(),))
    given = IMAGE.clone()
    canonical(given)
    torch.testing.assert_close(given, IMAGE + 1)


@pytest.mark.parametrize(
    ("padding", "kernel", "dilation", "expected"),
    [("same", 3, 1, [1, 1]), ("same", 5, 2, [4, 4]), ("valid", 3, 1, [0, 0]), ("same", 2, 1, None)],
)
def test_named_padding_is_written_out_where_it_is_even(
    padding: str, kernel: int, dilation: int, expected: list[int] | None
) -> None:
    conv = nn.Conv2d(4, 4, kernel, padding=padding, dilation=dilation, groups=2)
    _, canonical = both(lambda c, x: c(x), conv)
    [node] = [n for n in canonical.graph.nodes if n.op == "call_function"]
    if expected is None:
        assert str(node.target) == "aten.conv2d.padding"
    else:
        assert str(node.target) == "aten.conv2d.default"
        assert argument_value(node, "padding") == expected
        assert argument_value(node, "dilation") == [dilation, dilation]
        assert argument_value(node, "groups") == 2


def test_spellings_become_one() -> None:
    def body(x: Tensor) -> Tensor:
        return torch.concat([F.relu6(x), torch.multiply(x, x)], 1) + torch.add(x, x, alpha=1).sum()

    _, canonical = both(body)
    found = ops(canonical)
    assert found["hardtanh.default"] == found["cat.default"] == found["mul.Tensor"] == 1
    assert not {"relu6.default", "concat.default", "multiply.Tensor"} & found.keys()
    assert all(not node.kwargs for node in canonical.graph.nodes)


def test_views_become_reshapes_unless_they_are_written_through() -> None:
    raw, canonical = both(lambda x: x.relu().view(2, -1) + x.view_as(x).reshape(2, -1))
    assert ops(raw)["view.default"] == ops(raw)["view_as.default"] == 1
    assert not {"view.default", "view_as.default"} & ops(canonical).keys()

    def writes(x: Tensor) -> Tensor:
        y = x + 1
        y.view(-1)[:3] += 1
        return y.view(2, -1)

    _, canonical = both(writes)
    assert ops(canonical)["view.default"] == 1  # the second is read only
    assert ops(canonical)["reshape.default"] == 1


@pytest.mark.parametrize("view", [lambda y: y[:, 2:], lambda y: y.chunk(2, 1)[1].transpose(1, 2)])
def test_strided_reads_go_to_the_tensor_that_has_the_memory(view: Callable[..., Any]) -> None:
    _, canonical = both(lambda x: view(x.relu()).as_strided((2, 2, 64), (256, 64, 1)))
    [node] = canonical.graph.find_nodes(
        op="call_function", target=torch.ops.aten.as_strided.default
    )
    assert str(node.args[0]) == "relu"
    assert node.args[3] == 128
    _, of_input = both(lambda x: view(x).as_strided((2, 2, 64), (256, 64, 1)))
    assert ops(of_input).keys() > {"as_strided.default"}  # it begins where the caller says


def test_no_grad_regions_are_inlined() -> None:
    case = CASES["no_grad_region"]
    raw = capture(case.make(), case.inputs, pipeline=NOTHING)
    assert any("wrap_with_set_grad_enabled" in op for op in ops(raw))
    canonical = CANONICALIZE.run(raw)
    assert len(list(all_graphs(canonical))) == 1
    assert not any("wrap_with_set_grad_enabled" in op for op in ops(canonical))
    torch.testing.assert_close(canonical(*case.inputs), raw(*case.inputs))


def test_dead_code_and_unused_tensors_go() -> None:
    raw, canonical = both(lambda c, x: (c(x), x.relu())[1], nn.Conv2d(4, 4, 1))
    assert ops(raw)["conv2d.default"] == 1
    assert ops(canonical) == {"relu.default": 1}
    assert not canonical.state_dict()


def test_chains_of_writes_to_state_inputs_and_views_stay_in_place() -> None:
    class Running(nn.Module):
        state: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("state", torch.ones(2, 4, 8, 8))

        def forward(self, x: Tensor) -> Tensor:
            self.state.mul_(0.5).add_(x)
            return self.state.relu()

    model = Running().eval()
    graph = capture(model, (IMAGE,))
    for _ in range(3):
        torch.testing.assert_close(graph(IMAGE), model(IMAGE))

    given, wanted = IMAGE.clone(), IMAGE.clone()
    write = Net(lambda x: x.mul_(2).add_(1)).eval()
    graph = capture(write, (IMAGE.clone(),))
    graph(given), write(wanted)
    torch.testing.assert_close(given, wanted)

    def through_view(c: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        y = c(x)
        z = y.view(2, -1)
        y.add_(1).mul_(2)
        return y, z

    both(through_view, nn.Conv2d(4, 4, 1))


@pytest.mark.parametrize(
    "branches",
    [
        lambda first, second: (
            lambda a: F.linear(a, first.weight, first.bias),
            lambda a: second(a) * 2,
        ),
        lambda first, second: (lambda a: first(second(a)), lambda a: second(a)),
    ],
)
def test_weights_sink_into_branches_in_any_order(branches: Callable[..., Any]) -> None:
    class Choice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            yes, no = branches(self.first, self.second)
            chosen: Tensor = torch.cond(x.sum() > 0, yes, no, (x,))
            return chosen

    model = Choice().eval()
    for x in (torch.rand(2, 8), -torch.rand(2, 8)):
        torch.testing.assert_close(capture(model, (x,))(x), model(x))


def test_a_branch_without_operands_keeps_its_weights() -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            chosen: Tensor = torch.cond(
                x.sum() > 0, lambda: self.first.weight * 2, lambda: self.second.weight * 3, ()
            )
            return x @ chosen

    model, x = Constant().eval(), torch.rand(2, 8)
    torch.testing.assert_close(capture(model, (x,))(x), model(x))
