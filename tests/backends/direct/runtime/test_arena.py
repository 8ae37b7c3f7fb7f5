"""Buffers that live at the same time never overlap."""

from __future__ import annotations

import random
from itertools import pairwise

import torch

from quantfx.backends.direct.runtime.arena import ALIGNMENT, plan_arena, settle_sums
from quantfx.backends.direct.runtime.steps import Lookup, MatMul, PostOp, Program, Step
from quantfx.backends.direct.runtime.values import Buffer, Value, in_order


def value(size: int = 64, place: str = "arena") -> Value:
    layout = in_order(torch.Size([size]), torch.uint8)
    return Value(Buffer(size, place), layout)  # type: ignore[arg-type]


def random_program(rng: random.Random) -> Program:
    values = [value(rng.randint(1, 500)) for _ in range(3)]
    steps: list[Step] = []
    for _ in range(40):
        made = value(rng.randint(1, 500))
        steps.append(Lookup(source=rng.choice(values[-6:]), result=made))
        values.append(made)
    return Program(steps)


def test_what_lives_at_once_does_not_overlap() -> None:
    rng = random.Random(0)
    for _ in range(30):
        program = random_program(rng)
        arena = plan_arena(program)
        contents: dict[int, Buffer] = {}
        for step in program.steps:
            for read in step.reads():
                start = arena.offsets[read.buffer]
                if read.buffer in contents.values():
                    assert all(contents[start + i] is read.buffer for i in range(read.buffer.size))
            start = arena.offsets[step.result.buffer]
            assert start % ALIGNMENT == 0
            assert start + step.result.buffer.size <= arena.size
            contents |= {start + i: step.result.buffer for i in range(step.result.buffer.size)}


def test_a_chain_takes_the_memory_of_two_buffers() -> None:
    values = [value(128) for _ in range(10)]
    steps: list[Step] = [Lookup(source=one, result=other) for one, other in pairwise(values)]
    assert plan_arena(Program(steps)).size == 256


def summing(summand: Value, result: Value) -> MatMul:
    weight = Value(Buffer(0, "constant", constant=torch.ones(1)), summand.layout)
    return MatMul(
        source=value(), weight=weight, result=result, summand=summand, post=(PostOp("sum"),)
    )


def test_a_sum_takes_the_memory_of_a_summand_that_nothing_else_reads() -> None:
    summand, result, behind = value(), value(), value()
    last = Lookup(source=result, result=behind)
    program = Program([Lookup(source=value(), result=summand), summing(summand, result), last])
    settle_sums(program)
    assert [type(step) for step in program.steps] == [Lookup, MatMul, Lookup]
    assert program.steps[1].result.buffer is summand.buffer
    assert last.source.buffer is summand.buffer


def test_a_sum_starts_from_a_copy_of_what_is_read_later() -> None:
    summand, result = value(), value()
    later = Lookup(source=summand, result=value())
    program = Program([summing(summand, result), later])
    settle_sums(program)
    copy, product, _ = program.steps
    assert isinstance(copy, Lookup)
    assert copy.table is None
    assert copy.source.buffer is summand.buffer
    assert copy.result.buffer is result.buffer
    assert product.result.buffer is result.buffer


def test_a_sum_with_its_own_source_starts_from_a_copy() -> None:
    both, result = value(), value()
    step = summing(both, result)
    step.source = both
    program = Program([Lookup(source=value(), result=both), step])
    settle_sums(program)
    assert [type(step) for step in program.steps] == [Lookup, Lookup, MatMul]
    assert step.result.buffer is not both.buffer


def test_a_sum_into_an_output_starts_from_a_copy() -> None:
    summand, result = value(), value(place="output")
    program = Program([summing(summand, result)])
    settle_sums(program)
    assert [type(step) for step in program.steps] == [Lookup, MatMul]
