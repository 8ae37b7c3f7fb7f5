"""The float outputs of calls: their rows, their power, and random signs for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from quantfx.passes.inputs.leaves import Inputs, leaves_in
from quantfx.passes.model.input_copies import copy_inputs


def float_places(outputs: Sequence[Any]) -> list[int]:
    """Return which leaves are float tensors with values."""
    return [
        place
        for place, leaf in enumerate(outputs)
        if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.numel()
    ]


def float_outputs(model: Callable[..., Any], call: Inputs) -> list[Tensor]:
    """Return the float tensors that ``model`` returns for one call; it may write to its inputs."""
    args, kwargs = copy_inputs(*call)
    outputs = leaves_in(model(*args, **kwargs))
    return [outputs[place] for place in float_places(outputs)]


def finite(outputs: Sequence[Tensor]) -> list[Tensor]:
    """Return outputs with 0 where they are infinite: a mask has no power."""
    return [each.where(each.isfinite(), 0) for each in outputs]


def errors_of(exact: Sequence[Tensor], found: Sequence[Tensor]) -> list[Tensor]:
    """Return the errors of ``found``, 0 where ``exact`` is infinite."""
    pairs = zip(exact, found, strict=True)
    return [(given - each).where(each.isfinite(), 0) for each, given in pairs]


def rows_of(outputs: Sequence[Tensor]) -> int:
    """Return the common first size of all outputs; 1 if they differ."""
    sizes = {each.shape[0] if each.dim() else 1 for each in outputs}
    return sizes.pop() if len(sizes) == 1 else 1


def powers(outputs: Sequence[Tensor], rows: int) -> Tensor:
    """Return ``sum y^2`` of each output in each row, ``(outputs, rows)``."""
    flat = [each.detach().double().reshape(rows, -1) for each in outputs]
    return torch.stack([each.square().sum(1) for each in flat])


class Signs:
    """Draws +1 and -1 row by row, so that pieces of a batch get the same signs as the whole batch.

    Args:
        seed: Equal seeds draw equal signs.
    """

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def draw(self, outputs: Sequence[Tensor], rows: int, draws: int) -> list[list[Tensor]]:
        """Return ``draws`` lists of tensors like ``outputs``.

        Args:
            outputs: The outputs that the signs are for.
            rows: Number of rows of each output.
            draws: Number of signs for each value.
        """
        sizes = [each.numel() // rows for each in outputs]
        drawn = [[[self._of(size) for size in sizes] for _ in range(draws)] for _ in range(rows)]
        return [
            [
                torch.stack([row[draw][place] for row in drawn]).to(like).reshape(like.shape)
                for place, like in enumerate(outputs)
            ]
            for draw in range(draws)
        ]

    def _of(self, size: int) -> Tensor:
        return torch.randint(0, 2, (size,), generator=self._generator) * 2 - 1
