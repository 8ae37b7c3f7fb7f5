"""Libraries take inputs in any layout and form of call, and refuse what they would lose."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch._inductor.config
from torch import Tensor, nn
from torch.export import Dim

import quantfx
from quantfx.passes.errors import InputError
from tests.refusals import refused


class Scaled(nn.Module):
    """Two inputs, one of them nested; a difference and a quotient tell which is which."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor, more: dict[str, Tensor]) -> Tensor:
        y: Tensor = self.second(self.first(x).relu())
        return y - more["a"] / more["b"]


@pytest.fixture(autouse=True, scope="module")
def headers_as_they_are() -> Iterator[None]:
    """Compiled beforehand, two headers take 20 s, and spare 10 s of the one library in CI.

    The code around the kernels is not optimized either: it runs a few times.
    """
    plain = {
        "aot_inductor.precompile_headers": False,
        "aot_inductor.compile_wrapper_opt_level": "O0",
    }
    with torch._inductor.config.patch(plain):
        yield


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) + 0.5


X, A, B = random(4, 8), random(4, 4, seed=1), random(4, 4, seed=2)


def library(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None, **options: Any
) -> tuple[quantfx.Result, Callable[..., Any]]:
    result = quantfx.quantize(
        model.eval(),
        args,
        example_kwargs=kwargs,
        calibration=[kwargs or args],
        **options,
    )
    return result, result.compile(wrapper="aot")


def agrees(run: Callable[..., Any], result: quantfx.Result, *args: Any, **kwargs: Any) -> None:
    with torch.no_grad():
        torch.testing.assert_close(run(*args, **kwargs), result.quantized(*args, **kwargs))


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda x: x.t().contiguous().t(),
    "with gaps": lambda x: torch.stack([x, x + 1], -1)[..., 0],
    "a part": lambda x: torch.cat([x, x], 1)[:, : x.shape[1]],
    "expanded": lambda x: x[:1].expand(x.shape),
    "a column": lambda x: x[:, :1].expand(x.shape),
}


@pytest.fixture(scope="module")
def in_place() -> tuple[quantfx.Result, Callable[..., Any]]:
    torch.manual_seed(0)
    return library(Scaled(), (X, {"a": A, "b": B}))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_inputs_come_in_any_layout(in_place: Any, layout: str) -> None:
    result, run = in_place
    change = LAYOUTS[layout]
    agrees(run, result, change(X), {"a": change(A), "b": B})
    agrees(run, result, X, {"a": A, "b": change(B)})


def test_inputs_come_in_any_form(in_place: Any) -> None:
    result, run = in_place
    agrees(run, result, X, {"a": A, "b": B})
    agrees(run, result, X, more={"a": A, "b": B})
    agrees(run, result, more={"b": B, "a": A}, x=X)  # a dictionary has no order


def test_other_inputs_are_refused(in_place: Any) -> None:
    _, run = in_place
    for args, kwargs in (((X,), {}), ((X, {"a": A}), {}), ((X, {"a": A, "b": B}), {"c": A})):
        with pytest.raises(InputError):
            run(*args, **kwargs)


@pytest.mark.sweep
def test_an_example_by_keyword_with_free_sizes_in_another_layout() -> None:
    torch.manual_seed(0)
    batch = Dim("batch", min=2, max=64)
    free = {"x": {0: batch}, "more": {"a": {0: batch}, "b": {0: batch}}}
    given = {"x": X.t().contiguous().t(), "more": {"a": A.t().contiguous().t(), "b": B}}
    result, run = library(Scaled(), (), given, dynamic_shapes=free)
    for rows in (4, 7):
        x, a, b = random(rows, 8, seed=3), random(rows, 4, seed=4), random(rows, 4, seed=5)
        agrees(run, result, x=x, more={"a": a, "b": b})
        agrees(run, result, x.t().contiguous().t(), {"b": b, "a": a.t().contiguous().t()})


@pytest.mark.sweep
@pytest.mark.parametrize("gaps", [lambda x: x[::2], lambda x: x[:1].expand(2, -1, -1, -1)])
def test_an_example_with_gaps_is_one_without(gaps: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1))
    wide = random(4, 3, 8, 8)
    result, run = library(model, (gaps(wide),))
    for x in (wide[:2], wide[::2], wide[2:].to(memory_format=torch.channels_last)):
        agrees(run, result, x)


@pytest.mark.sweep
def test_writes_to_inputs_reach_the_caller_in_every_layout() -> None:
    class Writes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 8)

        def forward(self, x: Tensor, state: Tensor) -> Tensor:
            state.add_(x)
            y: Tensor = self.linear(x)
            return y + state

    torch.manual_seed(0)
    result, run = library(Writes(), (X, X.clone()))
    for change in (Tensor.clone, LAYOUTS["transposed"]):
        ours, wanted = change(X), change(X)
        with torch.no_grad():
            torch.testing.assert_close(run(X, ours), result.quantized(X, wanted))
        torch.testing.assert_close(ours, wanted)
        assert not torch.equal(ours, X)


@pytest.mark.parametrize("rows", [1, 16, 512])
def test_a_buffer_of_any_size_that_is_written_to_is_refused(rows: int) -> None:
    class Counts(nn.Module):
        state: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 8)
            self.register_buffer("state", torch.zeros(rows, 8))

        def forward(self, x: Tensor) -> Tensor:
            self.state.mul_(0.5).add_(1.0)
            y: Tensor = self.linear(x)
            return y + self.state.sum(0)

    with refused("written-buffer", site="state", fix="wrapper='cpp"):
        library(Counts(), (X,))
