"""The estimate, against errors and Jacobians that are known, and on graphs of many kinds."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

import quantfx
from quantfx import Sensitivity, backends
from quantfx.compare_result import float_graph
from quantfx.passes.inputs.example import ExampleInputs
from quantfx.passes.report.sensitivity.estimate import estimate_sensitivity
from quantfx.passes.report.sensitivity.evaluate import PartlyRounded
from quantfx.passes.report.sensitivity.gradient_run import run_with_errors
from quantfx.passes.report.sensitivity.outputs import Signs
from quantfx.passes.report.sensitivity.paired_graphs import PairedGraphs
from quantfx.patterns.errors import QuantfxError
from quantfx.tools.models.bert import BERT_TINY, bert, bert_inputs
from quantfx.tools.models.seeded import seeded
from tests.refusals import refused
from tests.unchecked import quantize

X86 = backends.get("x86", target="avx2", kernels="onednn")


def data(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pair(model: nn.Module, *example: Tensor, rows: bool = False) -> PairedGraphs:
    """Quantize a model, calibrated on its example and that with other signs.

    Args:
        model: The model.
        example: What it is captured with.
        rows: Leave the number of rows free.
    """
    free = ({0: Dim.AUTO},) if rows else None
    data = [example, tuple(-each if each.is_floating_point() else each for each in example)]
    result = quantize(model, example, calibration=data, backend=X86, dynamic_shapes=free)
    inputs = ExampleInputs(example, {}, free)
    reference = float_graph(X86, model, inputs, asked="sensitivity")[1]
    return PairedGraphs(reference, result.quantized)


def estimated(paired: PairedGraphs, *batches: object, draws: int = 1) -> Sensitivity:
    return estimate_sensitivity(paired, batches, draws=draws, progress=False)


def chain() -> nn.Sequential:
    """Two linears, without anything in between: the Jacobian is the second weight."""
    return seeded(lambda: nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 3)))


def test_all_signs_give_the_norm_of_each_error_at_the_outputs() -> None:
    model, x = chain(), data(1, 8)
    paired = pair(model, x)
    call = run_with_errors(paired, ((x,), {}))
    first, second = (each.errors[0] for each in call.errors)
    output = [call.outputs[0]]
    found = [
        [
            float((slopes[0] * error).sum())
            for slopes, error in zip(
                call.gradients([0], [torch.tensor([signs])], keep=True),
                (first, second),
                strict=True,
            )
            if slopes[0] is not None
        ]
        for signs in itertools.product((-1.0, 1.0), repeat=3)
    ]
    mean = torch.tensor(found).square().mean(0)
    at_output = first @ model[1].weight.detach().T  # type: ignore[operator]
    assert float(first.abs().max()) > 0
    assert mean[0] == pytest.approx(float(at_output.square().sum()), rel=1e-4)
    assert mean[1] == pytest.approx(float(second.square().sum()), rel=1e-4)
    assert torch.equal(output[0].detach(), model(x))


def test_many_draws_come_near_to_what_rounding_one_site_costs() -> None:
    model, x = chain(), data(64, 8)
    paired = pair(model, x)
    found = estimated(paired, x, draws=16)
    exact = model(x).detach().double()
    for row in found.ranked("graph"):
        with torch.no_grad():
            noise = (PartlyRounded(paired, {row.name})(x) - exact).square().sum()
        assert row.cost == pytest.approx(float(noise / exact.square().sum()), rel=0.15)
        assert 0 < row.uncertainty < 0.2
    assert found.unit == "row"
    assert found.contributions.shape == (64 * 16, 2)


def test_all_rounded_and_none_rounded_are_the_two_graphs() -> None:
    model, tokens = bert(BERT_TINY), bert_inputs(BERT_TINY)
    paired = pair(model, *tokens)
    every = {part.anchor.name for part in paired.parts}
    with torch.no_grad():
        wanted = paired.quantized(*tokens)
        found = PartlyRounded(paired, every)(*tokens)
        exact = PartlyRounded(paired, ())(*tokens)
        torch.testing.assert_close(found, wanted)
        torch.testing.assert_close(exact, paired.reference(*tokens))
    assert not torch.equal(found[0], exact[0])


def test_pieces_of_a_batch_give_the_rows_of_the_whole() -> None:
    model, x = (
        seeded(lambda: nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))),
        data(8, 8),
    )
    paired = pair(model, x[:4], rows=True)
    whole = estimated(paired, x)
    pieces = estimated(paired, x[:1], x[1:4], x[4:])
    assert whole.calls == 1
    assert pieces.calls == 3
    torch.testing.assert_close(whole.contributions, pieces.contributions, rtol=1e-4, atol=1e-7)


def test_signs_do_not_depend_on_how_rows_are_cut() -> None:
    whole = Signs(3).draw([torch.empty(5, 7), torch.empty(5)], 5, 2)
    signs = Signs(3)
    parts = [signs.draw([torch.empty(n, 7), torch.empty(n)], n, 2) for n in (2, 3)]
    for draw, place in itertools.product(range(2), range(2)):
        joined = torch.cat([part[draw][place] for part in parts])
        assert torch.equal(whole[draw][place], joined)
    assert not torch.equal(whole[0][0], whole[1][0])


class TimeFirst(nn.Module):
    """Mixes time, in front of rows: time has as many steps as there are rows."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Compute ``(rows, 3)`` of ``(rows, time, 8)``."""
        x = self.inner(x.transpose(0, 1)).relu()
        return self.outer(x.mean(0))


def test_calls_are_counted_where_rows_do_not_come_first() -> None:
    model, x = seeded(TimeFirst), data(4, 4, 8)
    found = estimated(pair(model, x), x, x + 1)
    assert found.unit == "call"
    assert len(found.contributions) == 2


class Several(nn.Module):
    """A large output, a small one, the class, and one that no rounding reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.large, self.small = nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Compute."""
        large = self.large(x) * 1000
        return {"large": large, "small": self.small(x), "class": large.argmax(1), "x": x * 2}


def test_each_output_counts_by_its_own_power() -> None:
    x = data(32, 8)
    found = estimated(pair(seeded(Several), x), x, draws=8)
    large, small = (row.cost for row in found.ranked("graph"))
    assert 0.2 < large / small < 5
    assert dict(found.left_out) == {
        "output 2": "it is torch.int64",
        "output 3": "no gradient leads to it",
    }


class Classifier(nn.Module):
    """Returns no scores."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Compute."""
        return self.linear(x).argmax(1)


def test_a_model_without_float_outputs_is_refused() -> None:
    x = data(4, 8)
    with refused("no-gradients", QuantfxError, fix="float results"):
        estimated(pair(seeded(Classifier), x), x)


class Branching(nn.Module):
    """A linear, and a branch with another one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8, bias=False), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        """Compute."""
        x = self.first(x)
        return torch.cond(x.sum() > 0, lambda y: self.second(y).relu(), lambda y: y.relu(), (x,))


def test_sites_in_branches_are_said_to_be_left_out_and_gradients_pass_them() -> None:
    x = data(4, 8)
    found = estimated(pair(seeded(Branching), x), x)
    assert [row.module for row in found.ranked()] == ["first"]
    [(name, reason)] = found.left_out
    assert name.startswith("true_graph_0/")
    assert reason == "it runs inside control flow"


class Counting(nn.Module):
    """Writes to a buffer, to its input, and detaches."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 4)
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Compute."""
        self.seen += 1
        return self.linear(x.relu_()).detach() * 2


def test_nothing_is_left_on_the_model_nor_on_its_inputs() -> None:
    model, x = seeded(Counting), data(4, 8).requires_grad_(False)
    before, kept = {k: v.clone() for k, v in model.state_dict().items()}, x.clone()
    found = quantfx.sensitivity(model, (x.clone(),), [x], backend=X86, evaluate=1, whole=True)
    assert found.ranked()[0].cost > 0
    assert all(each.grad is None and each.requires_grad for each in model.parameters())
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert not model.seen.requires_grad
    assert torch.equal(x, kept)
    assert torch.is_grad_enabled()


def test_gradients_that_are_infinite_where_nothing_is_rounded_do_no_harm() -> None:
    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x).relu().sqrt()

    x = data(16, 8)
    x[0] = 0
    model = seeded(Root)
    nn.init.zeros_(model.linear.bias)
    found = estimated(pair(model, x), x)
    assert torch.isfinite(found.contributions).all()
