"""Compute the steps of an int8 attention as one, which keeps its scores in a core's caches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from quantfx.backends.checks.targets import host
from quantfx.backends.direct.rules.translate import flip
from quantfx.backends.direct.runtime.steps import (
    Attention,
    Lookup,
    MatMul,
    Pointwise,
    Program,
    Softmax,
    Step,
)
from quantfx.backends.direct.runtime.values import Buffer, Value

# Masks that one step adds: a causal one and the caller's own.
_MASKS = 2


def fuse_attention(program: Program) -> None:
    """Replace ``matmul, add of masks, softmax, matmul`` of integers by one step each.

    Not on CPUs with AMX, whose tiles multiply whole matrices: which is faster was not measured.
    """
    if host().name == "amx":
        return
    for softmax in [step for step in program.steps if isinstance(step, Softmax)]:
        found = _Parts.around(softmax, program)
        if found is not None:
            found.replace_in(program)


class _Parts(NamedTuple):
    """The steps of one attention, in order.

    Attributes:
        scores: The first product.
        masks: Steps that add a mask to its result.
        softmax: The softmax of both.
        result: The second product.
    """

    scores: MatMul
    masks: tuple[Pointwise, ...]
    softmax: Softmax
    result: MatMul

    @classmethod
    def around(cls, softmax: Softmax, program: Program) -> _Parts | None:
        """Return the attention of ``softmax``; None if it is none, or others read its values."""
        masks: list[Pointwise] = []
        before = _maker(softmax.source, program)  # scores are added to: a mask is the right operand
        while isinstance(before, Pointwise) and _adds_mask(before) and len(masks) < _MASKS:
            masks.insert(0, before)
            before = _maker(before.source, program)
        after = _only_reader(softmax, program)
        if not (isinstance(before, MatMul) and isinstance(after, MatMul)):
            return None
        found = cls(before, tuple(masks), softmax, after)
        return found if found._fits(program) else None

    def _fits(self, program: Program) -> bool:
        floats = (self.scores, *self.masks)
        own = {each.result.buffer for each in floats}
        weights, seen = self.softmax.result, self.result.source
        written = [each.result for each in (*floats, self.softmax)]
        read = [*(each.source for each in self.masks), self.softmax.source, seen]
        shape = self.scores.result.layout.shape
        return (
            _is_of_integers(self.scores)
            and _is_of_integers(self.result)
            and seen.buffer is weights.buffer
            and (seen.scale, seen.zero_point) == (weights.scale, weights.zero_point)
            and not (self.softmax.post or self.softmax.causal)
            and not any(each.result.is_integer for each in floats)
            and all(_only_reader(each, program) is not None for each in (*floats, self.softmax))
            and all(
                each.buffer not in own and each.layout.shape == shape for each in self._summands
            )
            # Nothing is a view in another order, or of other dimensions.
            and all(x.layout.shape == shape and x.layout.is_contiguous() for x in written + read)
            and shape.numel() > 0
        )

    @property
    def _summands(self) -> list[Value]:
        """The masks themselves."""
        return [each.other for each in self.masks if each.other is not None]

    def replace_in(self, program: Program) -> None:
        """Put one step in the place of all, and drop copies that they alone read."""
        steps = [self.scores, *self.masks, self.softmax, self.result]
        key, value = (_unflipped(each.weight, program) for each in (self.scores, self.result))
        masks = self._summands
        weights = self.softmax.result
        made = Attention(
            source=self.scores.source,
            key=key,
            value=value,
            mask=masks[0] if masks else None,
            second_mask=masks[1] if len(masks) > 1 else None,
            empty_is_zero=self.softmax.empty_is_zero,
            scores=self.scores.post,
            weights=(weights.scale, weights.zero_point, self.softmax.low, self.softmax.high),
            result=self.result.result,
            post=self.result.post,
            low=self.result.low,
            high=self.result.high,
            nodes=tuple(sorted({node for each in steps for node in each.nodes})),
            output=self.result.output,
        )
        program.steps[program.steps.index(self.result)] = made
        program.steps = [each for each in program.steps if each not in steps]
        program.steps = [each for each in program.steps if not _is_unread(each, program)]


def _adds_mask(step: Pointwise) -> bool:
    return step.combine == "add" and not step.post and not any(x.is_integer for x in step.reads())


def _is_of_integers(step: MatMul) -> bool:
    both = step.source.is_integer and step.weight.is_integer
    return both and not step.packs and step.summand is None and step.bias is None


def _maker(value: Value, program: Program) -> Step | None:
    """Return the one step that writes a value, if it lies in the arena."""
    writers = [each for each in program.steps if each.result.buffer is value.buffer]
    return writers[-1] if writers and value.buffer.place == "arena" else None


def _readers(buffer: Buffer, program: Program) -> Iterator[Step]:
    return (each for each in program.steps if any(read.buffer is buffer for read in each.reads()))


def _only_reader(step: Step, program: Program) -> Step | None:
    """Return the one step that reads a result in the arena and does not write it itself."""
    buffer = step.result.buffer
    readers = [each for each in _readers(buffer, program) if each is not step]
    writes = sum(each.result.buffer is buffer for each in program.steps)
    alone = len(readers) == writes == 1 and buffer.place == "arena"
    return readers[0] if alone else None


def _unflipped(value: Value, program: Program) -> Value:
    """Return what a copy of bytes as int8 was made from: the step turns bytes itself."""
    maker = _maker(value, program)
    if (
        not isinstance(maker, Lookup)
        or maker.table != flip()
        or maker.source.layout.shape != value.layout.shape
    ):
        return value
    return replace(
        value,
        buffer=maker.source.buffer,
        layout=maker.source.layout,
        zero_point=maker.source.zero_point,
    )


def _is_unread(step: Step, program: Program) -> bool:
    buffer = step.result.buffer
    return (
        isinstance(step, Lookup)
        and buffer.place == "arena"
        and step.output is None
        and not any(_readers(buffer, program))
    )
