from __future__ import annotations

import pytest
import torch

from quantfx.passes.inputs.contract import InputForm
from quantfx.passes.inputs.row_pieces import RowPieces, row_pieces


def form(path: str, *shape: int | str) -> InputForm:
    return InputForm(path, dtype=torch.float32, device="cpu", shape=shape)


@pytest.mark.parametrize(
    ("rows", "size", "expected"),
    [
        (4, 2, [[0, 1], [2, 3]]),
        (5, 2, [[0, 1], [2, 3], [4, 0]]),
        (2, 5, [[0, 1, 0, 1, 0]]),
        (1, 3, [[0, 0, 0]]),
        (3, 1, [[0], [1], [2]]),
    ],
)
def test_every_row_is_in_some_piece(rows: int, size: int, expected: list[list[int]]) -> None:
    pieces = RowPieces(rows, size, frozenset("x"), dense=False)
    found = [each[:, 0].tolist() for each in pieces.of(torch.arange(float(rows))[:, None])]
    assert found == expected


@pytest.mark.parametrize("size", [2, 3, 8])
def test_pieces_keep_the_layout_that_a_graph_holds_for(size: int) -> None:
    x = torch.randn(5, 3, 4, 4).to(memory_format=torch.channels_last)
    for piece in RowPieces(5, size, frozenset("x"), dense=True).of(x):
        assert piece.is_contiguous(memory_format=torch.channels_last)
        assert piece.storage_offset() == 0


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ({"x": (5, 3)}, {"x"}),
        ({"x": (5, 3), "y": (5, 4)}, {"x", "y"}),
        ({"x": (5, 3), "y": (2, 4)}, {"x"}),  # a mask of the example's rows
        ({"x": (5, 3), "free": (5, 4)}, {"x"}),
        ({"x": (5, 3), "z": (1, 4)}, {"x"}),
        ({"x": (5, 4)}, None),
        ({"x": (5, 3), "y": (6, 4)}, None),
        ({"x": (5, 3), "z": (5, 4)}, None),  # one row for all in the example
        ({"x": (0, 3)}, None),
    ],
)
def test_where_a_batch_is_cut(
    shapes: dict[str, tuple[int, ...]], expected: set[str] | None
) -> None:
    known = {
        "x": form("x", 2, 3),
        "y": form("y", 2, 4),
        "z": form("z", 1, 4),
        "free": form("free", "s0", 4),
    }
    leaves = {path: torch.zeros(shape) for path, shape in shapes.items()}
    pieces = row_pieces([known[path] for path in shapes], leaves)
    assert (None if pieces is None else set(pieces.paths)) == expected
    if pieces is not None:
        assert (pieces.rows, pieces.size) == (5, 2)
