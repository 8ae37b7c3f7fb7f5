"""The accuracy of an engine's outputs against the float network's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from quantfx.tools.bench.engine import EngineError
from quantfx.tools.measure.metrics import sqnr_db, top1_agreement


@dataclass(frozen=True)
class Accuracy:
    """Accuracy against the float network on the same inputs.

    Attributes:
        sqnr_db: Signal to noise of all floating outputs together, in dB.
        top1: Share of rows with the same largest entry; None unless the network returns one
            tensor ``(n, classes)``.
    """

    sqnr_db: float
    top1: float | None


def compare_outputs(reference: Sequence[object], outputs: Sequence[object]) -> Accuracy:
    """Compare what two networks returned for the same batches.

    Args:
        reference: One output per batch: a tensor, or tensors in tuples, lists and dicts.
        outputs: The same tensors in the same order, nested in any way.

    Raises:
        EngineError: the outputs do not have the same shapes, or none is floating.
    """
    ours = [_floats_of(output) for output in reference]
    theirs = [_floats_of(output) for output in outputs]
    shapes, other = ([[t.shape for t in row] for row in rows] for rows in (ours, theirs))
    if shapes != other or not any(ours):
        message = f"its outputs have shapes {other[:1]}, the float network's {shapes[:1]}"
        raise EngineError(message, rule="other-shapes")
    decibels = sqnr_db(_flat(ours), _flat(theirs))
    rows = [row[0] for row in ours if len(row) == 1 and row[0].dim() == 2 and row[0].shape[1] > 1]
    if len(rows) < len(ours):
        return Accuracy(decibels, None)
    same = top1_agreement(torch.cat(rows), torch.cat([row[0] for row in theirs]))
    return Accuracy(decibels, same)


def _floats_of(output: object) -> list[Tensor]:
    return [tensor.float() for tensor in _tensors(output) if tensor.is_floating_point()]


def _tensors(output: object) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        yield from (tensor for value in output.values() for tensor in _tensors(value))
    elif isinstance(output, tuple | list):
        yield from (tensor for value in output for tensor in _tensors(value))


def _flat(rows: Sequence[Sequence[Tensor]]) -> Tensor:
    return torch.cat([tensor.flatten() for row in rows for tensor in row])
