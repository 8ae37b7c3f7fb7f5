from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from quantfx.passes.fold.fold_batch_norm import FoldBatchNorm
from quantfx.passes.pipeline.pipeline import Pipeline
from quantfx.patterns.schema import resolve_op
from quantfx.tools.models.seeded import seeded
from tests.export_cases import CASES, Net
from tests.unchecked import capture

FOLD = Pipeline((FoldBatchNorm(),))
BATCH_NORM = resolve_op("aten.batch_norm.default")


def error(model: nn.Module, x: Tensor, folded: int) -> float:
    """Return the error relative to the largest output, having counted the folds."""
    graph = capture(model, (x,))
    total = len(graph.graph.find_nodes(op="call_function", target=BATCH_NORM))
    done = FOLD.run(graph)
    left = len(done.graph.find_nodes(op="call_function", target=BATCH_NORM))
    assert total - left == folded
    with torch.no_grad():
        expected, given = model(x), done(x)
    return float((given - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("eps", [1e-5, 1e-3])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_folding_keeps_the_function(dims: int, eps: float, affine: bool, bias: bool) -> None:
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1](4, 8, 3, bias=bias, groups=2)
    norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[dims - 1](8, eps=eps, affine=affine)
    model = seeded(lambda: nn.Sequential(conv, norm).eval())
    with torch.no_grad():  # small variances are where a lost eps shows
        norm.running_var.mul_(1e-3)  # type: ignore[union-attr]
    assert error(model, torch.randn(2, 4, *[6] * dims), folded=1) <= 1e-5


@pytest.mark.parametrize("name", ["batch_norm_eps", "conv_shared_by_batch_norms"])
def test_shared_weights_are_folded_once_each(name: str) -> None:
    case = CASES[name]
    model = case.make()
    graph = capture(model, case.inputs)
    done = FOLD.run(graph)
    assert not done.graph.find_nodes(op="call_function", target=BATCH_NORM)
    with torch.no_grad():
        outputs = tree_leaves(model(*case.inputs)), tree_leaves(done(*case.inputs))
    for expected, given in zip(*outputs, strict=True):
        assert float((given - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


@pytest.mark.parametrize(
    "body",
    [
        lambda c, n, x: n(c(x)) + c(x).sum(),
        lambda c, n, x: (y := c(x)) * 2 + n(y),
    ],
    ids=["called_twice", "two_users"],
)
def test_a_convolution_that_others_read_keeps_its_weights(body: Callable[..., Tensor]) -> None:
    model = seeded(lambda: Net(body, nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)).eval())
    x = torch.randn(2, 4, 6, 6)
    done = FOLD.run(capture(model, (x,)))
    with torch.no_grad():
        expected, given = model(x), done(x)
    assert float((given - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


def test_the_fold_is_named_like_the_weights_it_replaces() -> None:
    model = seeded(lambda: nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4)).eval())
    done = FOLD.run(capture(model, (torch.randn(1, 4, 4, 4),)))
    assert sorted(done.state_dict()) == ["0.bias", "0.weight"]


def test_statistics_in_training_mode_are_not_folded() -> None:
    class Batch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.batch_norm(self.conv(x), None, None, training=True)

    graph = capture(Batch().eval(), (torch.randn(2, 4, 4, 4),))
    assert len(FOLD.run(graph).graph.find_nodes(op="call_function", target=BATCH_NORM)) == 1


@pytest.mark.parametrize("write", [lambda m: m.weight.mul_(0.5), lambda m: m.mean.add_(0.5)])
def test_tensors_that_the_graph_overwrites_are_not_baked_in(
    write: Callable[[nn.Module], Tensor],
) -> None:
    class Changing(nn.Module):
        weight: Tensor
        mean: Tensor
        var: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("weight", torch.randn(4, 4, 1, 1))
            self.register_buffer("mean", torch.zeros(4))
            self.register_buffer("var", torch.ones(4))

        def forward(self, x: Tensor) -> Tensor:
            y = nn.functional.conv2d(x, self.weight)
            y = nn.functional.batch_norm(y, self.mean, self.var)
            write(self)
            return y

    model, x = Changing().eval(), torch.randn(2, 4, 4, 4)
    done = FOLD.run(capture(model, (x,)))
    for _ in range(2):
        torch.testing.assert_close(done(x), model(x))


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_transposed_convolutions_fold_along_their_second_axis(dims: int, groups: int) -> None:
    kinds = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    conv = kinds[dims - 1](4, 8, 3, stride=2, output_padding=1, groups=groups)
    norm = norms[dims - 1](8, eps=1e-3)
    model = seeded(lambda: nn.Sequential(conv, norm).eval())
    with torch.no_grad():
        norm.weight.copy_(torch.randn(8))
        norm.running_var.copy_(torch.rand(8) + 0.1)  # type: ignore[union-attr]
    assert error(model, torch.randn(2, 4, *[5] * dims), folded=1) <= 1e-5


def test_a_linear_folds_on_rows_and_not_on_sequences() -> None:
    norm = nn.BatchNorm1d(8, eps=1e-3)
    rows = seeded(lambda: nn.Sequential(nn.Linear(4, 8, bias=False), norm).eval())
    with torch.no_grad():
        norm.running_var.copy_(torch.rand(8) + 0.1)  # type: ignore[union-attr]
    assert error(rows, torch.randn(3, 4), folded=1) <= 1e-5
    sequence = seeded(lambda: nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(8)).eval())
    assert error(sequence, torch.randn(3, 8, 4), folded=0) <= 1e-5


def norm(kind: type[nn.Module] = nn.BatchNorm2d, channels: int = 4, **options: Any) -> nn.Module:
    """A batch norm whose every tensor matters; eps is far from the default."""
    made = kind(channels, eps=1e-3, **options)
    with torch.no_grad():
        for tensor in (made.weight, made.bias, made.running_mean):
            if isinstance(tensor, Tensor):
                tensor.copy_(torch.randn(channels))
        if isinstance(made.running_var, Tensor):
            made.running_var.copy_(torch.rand(channels) + 0.1)
    return made


def conv(out: int = 4, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(4, out, 1, **options)


def added_to_a_view(c: nn.Module, n: nn.Module, x: Tensor) -> Tensor:
    y = c(x)
    y[:, 0] += 1
    return n(y)


def overwritten_afterwards(c: nn.Module, n: nn.Module, x: Tensor) -> Tensor:
    y = c(x)
    z = n(y)
    y.add_(1)
    return z + y


def overwritten_norm(c: nn.Module, n: nn.Module, x: Tensor) -> Tensor:
    z = n(c(x))
    z.mul_(2)
    return z


@pytest.mark.parametrize(
    ("body", "layers", "folded"),
    [
        # In place between the two, or on what the convolution yielded.
        pytest.param(lambda c, n, x: n(c(x).relu_()), [conv, norm], 0, id="relu_"),
        pytest.param(lambda c, n, x: n(c(x).mul_(2).add_(1)), [conv, norm], 0, id="mul_add_"),
        pytest.param(added_to_a_view, [conv, norm], 0, id="view"),
        pytest.param(overwritten_afterwards, [conv, norm], 0, id="overwritten_afterwards"),
        pytest.param(overwritten_norm, [conv, norm], 1, id="overwritten_norm"),
        # The batch norm sees some channels, or some rows, only.
        pytest.param(
            lambda c, n, m, x: torch.cat([n((h := c(x).split(4, 1))[0]), m(h[1])], 1),
            [lambda: conv(8), norm, norm], 0, id="split",
        ),
        pytest.param(lambda c, n, x: n(c(x)[:, :4]), [lambda: conv(8), norm], 0, id="slice"),
        pytest.param(lambda c, n, x: n(c(x)[:1]), [conv, norm], 0, id="rows"),
        # Several of a kind.
        pytest.param(lambda c, n, m, x: m(n(c(x))), [conv, norm, norm], 1, id="two_in_a_row"),
        pytest.param(lambda c, d, n, x: n(c(x)) + n(d(x)), [conv, conv, norm], 2, id="norm_twice"),
        pytest.param(
            lambda c, n, m, x: n(c(x)) + m(c(x * 2)), [conv, norm, norm], 2, id="conv_twice"
        ),
        pytest.param(
            lambda c, n, m, x: n(c(x)) + m(c(x * 2)),
            [lambda: nn.ConvTranspose2d(4, 4, 3, groups=2), norm, norm], 2, id="transposed_twice",
        ),
        # Parameters that something else reads too.
        pytest.param(
            lambda c, n, x: n(c(x)) * c.bias[:, None, None], [conv, norm], 1, id="bias_read"
        ),
        # Forms of the batch norm.
        pytest.param(
            lambda c, n, x: n(c(x)), [lambda: conv(bias=False), lambda: norm(affine=False)], 1,
            id="not_affine",
        ),
        pytest.param(
            lambda c, n, x: n(c(x)), [conv, lambda: norm(track_running_stats=False)], 0,
            id="no_statistics",
        ),
        pytest.param(
            lambda c, n, x: nn.functional.batch_norm(c(x), n.running_mean, n.running_var, eps=0.1),
            [conv, norm], 1, id="functional",
        ),
        pytest.param(
            lambda c, n, x: n(nn.functional.conv2d(x, c.weight * 2)), [conv, norm], 0, id="computed"
        ),
    ],
)  # fmt: skip
def test_what_is_folded_and_what_is_not(
    body: Callable[..., Tensor], layers: list[Callable[[], nn.Module]], folded: int
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Net(body, *(layer() for layer in layers)).eval()
    assert error(model, torch.randn(2, 4, 6, 6), folded) <= 1e-5


@pytest.mark.parametrize(
    ("linear", "batch_norm", "shape", "folded"),
    [
        (lambda: nn.Linear(4, 6), lambda: norm(nn.BatchNorm1d, 6), (5, 4), 1),
        (lambda: nn.Linear(4, 6), lambda: norm(nn.BatchNorm1d, 6, affine=False), (5, 4), 1),
        # On sequences dimension 1 is time, even where it is as long as the linear is wide.
        (lambda: nn.Linear(4, 6), lambda: norm(nn.BatchNorm1d, 6), (5, 6, 4), 0),
        (lambda: nn.Linear(4, 6), lambda: norm(nn.BatchNorm2d, 3), (2, 3, 5, 4), 0),
    ],
)
def test_linears_fold_on_rows_only(
    linear: Callable[[], nn.Module],
    batch_norm: Callable[[], nn.Module],
    shape: tuple[int, ...],
    folded: int,
) -> None:
    model = nn.Sequential(linear(), batch_norm()).eval()
    assert error(model, torch.randn(shape), folded) <= 1e-5


@pytest.mark.parametrize(
    ("convolution", "shape"),
    [
        (lambda: nn.Conv1d(4, 8, 3), (4, 10)),
        (lambda: nn.Conv2d(4, 8, 3, padding=1), (4, 8, 8)),
        (lambda: nn.ConvTranspose1d(4, 8, 3), (4, 6)),
    ],
)
def test_without_a_batch_dimension_one_is_no_channel(
    convolution: Callable[[], nn.Module], shape: tuple[int, ...]
) -> None:
    """The batch norm takes dimension 1 for channels: here that is the first spatial one."""
    model = nn.Sequential(convolution(), norm(nn.BatchNorm1d, 8)).eval()
    assert error(model, torch.randn(shape), folded=0) <= 1e-5


def test_half_of_an_output_is_not_folded() -> None:
    """The batch norm behind a chunk sees some channels only."""
    model = seeded(
        lambda: Net(
            lambda c, n, x: (h := c(x).chunk(2, 1), n(h[0]) + h[1])[1],
            nn.Conv2d(4, 8, 1),
            nn.BatchNorm2d(4),
        ).eval()
    )
    assert error(model, torch.randn(2, 4, 6, 6), folded=0) <= 1e-5
