"""Cut a batch into pieces of the number of rows that a graph is valid for."""

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
        rows: Rows of the batch.
        size: Rows of a piece, as the graph requires.
        paths: The inputs that are cut. Other inputs fit and are whole in each piece: a mask of one
            row for all, a table, an input whose first dimension is free.
        dense: Whether to copy pieces, because the graph is valid for one layout only.
    """

    rows: int
    size: int
    paths: frozenset[str]
    dense: bool

    def of(self, tensor: Tensor) -> Iterator[Tensor]:
        """Yield the pieces of an input.

        The last piece is filled with rows from the start of the same batch. That does not change
        minimum and maximum; observers that count values count those rows twice.
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
    """Return how to cut a batch that does not fit the graph; None if it must not be cut.

    A batch is cut if the inputs that do not fit differ in their first dimension only, all have the
    same number of rows, and all had the same number of rows in the example.

    Args:
        forms: Forms of the graph's inputs.
        leaves: Path -> value, of a batch with all inputs.
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
