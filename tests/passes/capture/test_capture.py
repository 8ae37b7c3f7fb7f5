from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from quantfx.passes.capture.capture import capture
from quantfx.passes.errors import CaptureError
from quantfx.passes.graph.graphs import all_graphs
from quantfx.tools.models.resnet import resnet18
from tests.export_cases import CASES, IMAGE, ROWS, ExportCase, Net
from tests.models.small import mlp
from tests.refusals import refused


def close(a: object, b: object) -> None:
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_captured_graphs_compute_the_same(case: ExportCase) -> None:
    model = case.make()
    graph = capture(model, case.inputs, dict(case.kwargs) or None)
    with torch.no_grad():
        close(graph(*case.inputs, **case.kwargs), model(*case.inputs, **case.kwargs))


def test_the_graph_is_plain_and_picklable() -> None:
    case = CASES["shared_relu_residual"]
    graph = capture(case.make(), case.inputs)
    assert isinstance(graph, torch.fx.GraphModule)
    assert not any("_guards_fn" in str(node.target) for node in graph.graph.nodes)
    again = pickle.loads(pickle.dumps(graph))
    close(again(*case.inputs), graph(*case.inputs))


def test_the_users_model_is_never_touched() -> None:
    class Counter(nn.Module):
        count: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 8)
            self.register_buffer("count", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.count += 1
            return self.linear(x) * self.count

    model = Counter().eval()
    before = copy.deepcopy(model.state_dict())
    graph = capture(model, (ROWS,))
    graph(ROWS)
    close(graph(ROWS), 2 * model.linear(ROWS))
    close(model.state_dict(), before)
    assert not any(parameter.requires_grad for parameter in graph.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_dynamic_batch_stays_dynamic() -> None:
    batch = torch.export.Dim("batch", min=1, max=64)
    graph = capture(mlp(), (ROWS,), dynamic_shapes=({0: batch},))
    for size in (1, 5, 17):
        assert graph(torch.randn(size, 8)).shape[0] == size


def test_control_flow_branches_hold_their_own_weights() -> None:
    case = CASES["cond"]
    graph = capture(case.make(), case.inputs)
    branches = dict(all_graphs(graph))
    assert sorted(branches) == ["", "false_graph_0", "true_graph_0"]
    for path in ("true_graph_0", "false_graph_0"):
        names = [name for name, _ in branches[path].named_parameters()]
        names += [name for name, _ in branches[path].named_buffers()]
        assert any(name.endswith("weight") for name in names), names


def test_meta_survives_canonicalization() -> None:
    graph = capture(resnet18(depths=(1, 1, 1, 1), width=8).eval(), (torch.randn(1, 3, 32, 32),))
    for node in graph.graph.nodes:
        if node.op == "call_function":
            assert {"val", "nn_module_stack", "stack_trace"} <= node.meta.keys(), node.name


def test_training_mode_is_refused_with_the_fix() -> None:
    with refused("captured-mode", CaptureError, fix="model.eval()"):
        capture(mlp().train(), (ROWS,))
    half = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8)).eval()
    half[1].train()
    with refused("captured-mode", CaptureError, site="1"):
        capture(half, (ROWS,))


def test_what_export_rejects_is_quoted() -> None:
    def branchy(x: Tensor) -> Tensor:
        return x + 1 if bool(x.sum() > 0) else x - 1

    with refused("export-rejects", CaptureError, site="Net") as error:
        capture(Net(branchy).eval(), (IMAGE,))
    assert error.value.__cause__ is not None


def test_wrong_kinds_of_argument_are_refused() -> None:
    with refused("batch-form", CaptureError, site="example_inputs"):
        capture(mlp(), 3)  # type: ignore[arg-type]
    with refused("not-a-model", CaptureError):
        capture(nn.ReLU, (ROWS,))
