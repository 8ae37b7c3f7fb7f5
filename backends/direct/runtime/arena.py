"""Place the buffers of a program in one block of memory; buffers alive together never overlap."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from quantfx.backends.direct.runtime.steps import Accumulate, Lookup, Program, Step
from quantfx.backends.direct.runtime.values import Buffer, Value, in_order

# Bytes between the starts of buffers: a cache line, as vector loads prefer.
ALIGNMENT = 64


@dataclass(frozen=True)
class Arena:
    """The places of buffers in the arena.

    Attributes:
        offsets: Bytes from the start, by buffer.
        size: Bytes of the whole arena.
    """

    offsets: Mapping[Buffer, int]
    size: int


def settle_sums(program: Program) -> None:
    """Make each sum write into its summand's memory, or start from a copy of the summand.

    It is in place if no later step reads the summand, nor the step itself for its products, and the
    result is not an output.
    """
    steps: list[Step] = []
    last = {
        value.buffer: index for index, step in enumerate(program.steps) for value in step.reads()
    }
    taken: dict[Buffer, Buffer] = {}
    for index, step in enumerate(program.steps):
        if isinstance(step, Accumulate) and step.summand is not None:
            mine, summand = step.result.buffer, step.summand.buffer
            in_place = mine.place == summand.place == "arena" and last[summand] == index
            # Operands of the products must stay while the result is written.
            apart = step.source.buffer is not summand
            if in_place and apart and mine.size == summand.size:
                taken[mine] = summand
            else:
                steps.append(Lookup(source=step.summand, result=_raw(step)))
        steps.append(step)
    program.steps = steps
    _rename(program, taken)


def _raw(step: Accumulate) -> Value:
    """Return the memory of the result, seen as the summand."""
    assert step.summand is not None
    return replace(step.summand, buffer=step.result.buffer, layout=step.result.layout)


def _rename(program: Program, taken: Mapping[Buffer, Buffer]) -> None:
    """Point every value of a dropped buffer at the buffer that replaces it."""

    def final(buffer: Buffer) -> Buffer:
        while buffer in taken:
            buffer = taken[buffer]
        return buffer

    def moved(value: Value) -> Value:
        return replace(value, buffer=final(value.buffer)) if value.buffer in taken else value

    for step in program.steps:
        for name, value in vars(step).items():
            if isinstance(value, Value):
                setattr(step, name, moved(value))


def plan_arena(program: Program) -> Arena:
    """Place each buffer, the largest first, as low as buffers alive at the same time allow."""
    lives: dict[Buffer, tuple[int, int]] = {}
    for index, step in enumerate(program.steps):
        for value in (step.result, *step.reads()):
            if value.buffer.place == "arena":
                start, _ = lives.get(value.buffer, (index, index))
                lives[value.buffer] = (start, index)
    placed: list[tuple[Buffer, int]] = []
    for buffer in sorted(lives, key=lambda each: (-each.size, lives[each])):
        offset = 0
        for other, start in sorted(placed, key=lambda each: each[1]):
            if _meet(lives[buffer], lives[other]) and start < offset + _padded(buffer):
                offset = max(offset, start + _padded(other))
        placed.append((buffer, offset))
    size = max((offset + _padded(buffer) for buffer, offset in placed), default=0)
    return Arena(dict(placed), size)


def _meet(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one[0] <= other[1] and other[0] <= one[1]


def _padded(buffer: Buffer) -> int:
    return -(-max(buffer.size, 1) // ALIGNMENT) * ALIGNMENT


def separate(program: Program) -> None:
    """Make every buffer an output, as bytes, for inspection: nothing is overwritten."""
    for step in program.steps:
        buffer = step.result.buffer
        if buffer.place == "arena":
            buffer.place, buffer.index = "output", len(program.outputs)
            program.outputs.append(in_order(torch.Size([buffer.size]), torch.uint8))
