"""A batch of another number of rows than a graph holds for, as batches of that number."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from quantfx.passes.inputs.contract import InputForm
from quantfx.passes.inputs.shapes_line import other_dimensions


@dataclass(frozen=True)
class RowPieces:
    """How to cut a batch.

    Attributes:
        rows: Of the batch.
        size: Rows of a piece, which the graph holds for.
        paths: The inputs that are cut. Others fit, and are whole in each piece: a mask of one row
            for all, a table, what has a first dimension that is free.
        dense: Make copies, as the graph holds for one layout.
    """

    rows: int
    size: int
    paths: frozenset[str]
    dense: bool

    def of(self, tensor: Tensor) -> Iterator[Tensor]:
        """Yield the pieces of an input.

        The last one is filled with rows of the same batch, from its first on: that leaves smallest
        and largest values alone, and counts those rows once more where values are counted.
        """
        for start in range(0, self.rows, self.size):
            parts: list[Tensor] = []
            missing, place = self.size, start
            while missing:
                taken = min(missing, self.rows - place)
                parts.append(tensor.narrow(0, place, taken))
                missing, place = missing - taken, 0
            whole = parts[0] if len(parts) == 1 else torch.cat(parts)
            yield whole.clone() if self.dense else whole


def row_pieces(forms: Collection[InputForm], leaves: Mapping[str, object]) -> RowPieces | None:
    """Return how to cut a batch that a graph does not hold for; None if that is not to be done.

    It is where the inputs that do not fit differ in their first dimension alone, have the same
    number of rows there, and had the same number of them in the example.

    Args:
        forms: Of the inputs that the graph holds for.
        leaves: Path -> value, of a batch that has them all.
    """
    tensors = [(form, value) for form in forms if isinstance(value := leaves[form.path], Tensor)]
    others = [(form, value, other_dimensions(form, value)) for form, value in tensors]
    unfit = [(form, value) for form, value, places in others if places]
    if any(places not in ([], [0]) for _, _, places in others):
        return None
    counts = {(value.shape[0], form.shape[0]) for form, value in unfit}
    if len(counts) != 1:
        return None
    [(rows, size)] = counts
    if not rows or not isinstance(size, int) or not size:
        return None
    dense = any(form.strides is not None for form, _ in unfit)
    return RowPieces(rows, size, frozenset(form.path for form, _ in unfit), dense)
