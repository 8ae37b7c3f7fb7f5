"""Where a compiler traces the call, its guards are what decides between right and refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from quantfx.passes.capture.capture import capture
from quantfx.passes.errors import InputError


class Sized(nn.Module):
    """A linear, and what a function makes of its result and the other inputs."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.function = function

    def forward(self, x: Tensor, other: Any = None) -> Any:
        return self.function(self.linear(x), other)


def rows(*sizes: int) -> list[tuple[Any, ...]]:
    return [(torch.randn(size, 8), None) for size in sizes]


def more_than_four(y: Tensor, _: Any) -> Tensor:
    return y * 2 if y.shape[0] > 4 else y


def even(y: Tensor, _: Any) -> Tensor:
    return y * 2 if y.shape[0] % 2 else y


def halves(y: Tensor, _: Any) -> Tensor:
    return y * 2 if y.shape[0] / 2 > 2.4 else y


def both(y: Tensor, other: Tensor) -> Tensor:
    return y * 2 if y.shape[0] > other.shape[0] else y.sum() + other.sum()


def odd_number(y: Tensor, number: int) -> Tensor:
    return y * (2 if number % 2 else 1)


FREE = {"x": {0: Dim.AUTO}, "other": None}
TWO = {"x": {0: Dim.AUTO}, "other": {0: Dim.AUTO}}
X = torch.randn(4, 8)
CASES: dict[str, tuple[Callable[..., Any], Any, list[tuple[Any, ...]]]] = {
    "range": (more_than_four, None, rows(6, 4, 9)),
    "condition": (even, FREE, rows(4, 3, 8)),
    "division": (halves, FREE, rows(8, 4, 5)),
    "two sizes": (
        both,
        TWO,
        [(torch.randn(a, 8), torch.randn(b, 8)) for a, b in ((6, 3), (7, 2), (2, 2))],
    ),
    "number": (odd_number, {"x": None, "other": Dim.AUTO}, [(X, n) for n in (4, 1, 6, 0)]),
}


@pytest.mark.parametrize(
    ("case", "dynamic"),
    [
        ("range", None),  # Dynamo frees a size by itself from the second on: of any guard
        pytest.param("condition", None, marks=pytest.mark.sweep),
        # The guard of a division is traced as that of a remainder is.
        pytest.param("division", True, marks=pytest.mark.sweep),
        ("condition", True),
        ("two sizes", True),
        # What is written out is decided as the size that Dynamo frees, and a number as a size is.
        *(pytest.param(case, True, marks=pytest.mark.sweep) for case in ("range", "number")),
    ],
)
def test_guards_decide(case: str, dynamic: bool | None) -> None:
    function, shapes, calls = CASES[case]
    model = Sized(function).eval()
    graph = capture(model, calls[0], dynamic_shapes=shapes)
    torch.compiler.reset()
    compiled = torch.compile(graph, backend="eager", dynamic=dynamic)
    refused = 0
    for call in (*calls, calls[0]):
        expected = model(*call)
        try:
            eager = graph(*call)
        except InputError:
            refused += 1
            with pytest.raises(InputError):
                compiled(*call)
        else:
            torch.testing.assert_close(eager, expected)
            torch.testing.assert_close(compiled(*call), expected)
    assert 0 < refused < len(calls)


@pytest.mark.parametrize(
    ("captured", "called"),
    [
        ({"a": X, "b": X}, {"b": X, "a": X}),
        ([X, X], (X, X)),
        pytest.param({"a": X}, {"a": X, "b": []}, marks=pytest.mark.sweep),
        pytest.param([X], X, marks=pytest.mark.sweep),
    ],
)
def test_structures_are_compared(captured: Any, called: Any) -> None:
    def first(y: Tensor, other: Any) -> Tensor:
        values = list(other.values()) if isinstance(other, dict) else other
        return y * values[0]

    graph = capture(Sized(first).eval(), (X, captured))
    torch.compiler.reset()
    compiled = torch.compile(graph, backend="eager")
    for run in (graph, compiled):
        run(X, captured)
        with pytest.raises(InputError):
            run(X, called)
