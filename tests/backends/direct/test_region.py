"""A region as a module: shapes, threads, copies, and what it holds."""

from __future__ import annotations

import copy
import gc
import io
import multiprocessing
import pickle
import resource
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from quantfx.backends.direct.operator import region_operator
from quantfx.backends.direct.plans import PLANS
from quantfx.backends.direct.region import Region
from quantfx.backends.direct.runtime.plan import CONTEXTS
from quantfx.backends.direct.runtime.steps import Convolution
from tests.backends.direct.qdq_cases import (
    Draw,
    add_weight,
    dequantize,
    make_graph,
    quantize,
    round_trip,
)
from tests.refusals import refused

A = torch.ops.aten


def residual(seed: int = 0, channels: int = 8) -> Region:
    """Two convolutions, a sum with the first, an average and a linear."""
    draw = Draw(seed)
    for name in ("w", "v"):
        add_weight(draw, name, channels, channels, 3, 3)
    add_weight(draw, "u", 5, channels)
    first, second, third = (draw.qparams() for _ in range(3))

    def build(model: Any, inputs: tuple[Any, ...]) -> list[Any]:
        x = round_trip(inputs[0], first)
        y = A.relu.default(A.conv2d.default(x, model.weight("w"), None, [1, 1], [1, 1]))
        q = quantize(y, second)
        z = A.conv2d.default(dequantize(q, second), model.weight("v"), None, [1, 1], [1, 1])
        z = round_trip(A.relu.default(A.add.Tensor(z, dequantize(q, second))), third)
        z = round_trip(A.adaptive_avg_pool2d.default(z, [1, 1]), third)
        return [A.linear.default(A.flatten.using_ints(z, 1), model.weight("u"), None)]

    return Region(make_graph(draw, 1, build))


def image(batch: int = 1, side: int = 8) -> Tensor:
    return torch.randn(batch, 8, side, side, generator=torch.Generator().manual_seed(batch * side))


def agrees(region: Region, x: Tensor) -> bool:
    (found,), (expected,) = region(x), region.graph(x)
    return torch.allclose(found, expected, atol=0.05 * float(expected.abs().max()))


def test_another_shape_is_another_plan() -> None:
    region = residual()
    shapes = [image(1), image(2), image(3, 5), image(1, 12)]
    assert all(agrees(region, x) for x in shapes)
    assert region.plan((shapes[0],)) is not region.plan((shapes[1],))
    assert region.plan((shapes[0],)) is region.plan((image(1),))


def test_the_plan_used_longest_ago_is_dropped() -> None:
    region = residual()
    first = region.plan((image(1),))
    for batch in range(2, PLANS + 2):
        region(image(batch))
    assert region.plan((image(1),)) is not first


def test_inputs_in_another_order_are_read_as_they_lie() -> None:
    region = residual()
    x = image(2)
    expected = region(x)[0]
    assert torch.equal(region(x.to(memory_format=torch.channels_last))[0], expected)
    wide = torch.zeros(2, 8, 8, 16)
    wide[..., ::2] = x
    assert torch.equal(region(wide[..., ::2])[0], expected)


def test_no_rows_give_no_rows() -> None:
    assert residual()(image(2)[:0])[0].shape == (0, 5)


def test_threads_may_call_at_once() -> None:
    region = residual()
    inputs = [image(1), image(2, 11)]
    expected = [region(x)[0] for x in inputs]

    def calls(index: int) -> bool:
        return all(
            torch.equal(region(inputs[(index + i) % 2])[0], expected[(index + i) % 2])
            for i in range(250)
        )

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(calls, range(4)))
    assert len(region.plan((inputs[0],))._idle) <= CONTEXTS


def test_threads_may_make_the_first_call_at_once() -> None:
    region = residual()
    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(lambda _: region(image())[0], range(8))
    assert all(torch.equal(first, other) for other in others)


def test_a_copy_and_a_pickle_pack_anew() -> None:
    region = residual()
    expected = region(image())[0]
    copied = copy.deepcopy(region)
    assert torch.equal(copied(image())[0], expected)
    stream = io.BytesIO(pickle.dumps(region.graph.state_dict()))
    assert pickle.load(stream).keys() == region.graph.state_dict().keys()
    copied.graph.get_buffer("w").zero_()
    assert torch.equal(region(image())[0], expected)
    assert not torch.equal(copied(image())[0], expected)


def test_a_weight_that_was_written_to_is_packed_anew() -> None:
    region = residual()
    region(image())
    region.graph.get_buffer("w").neg_()
    assert agrees(region, image())


def test_nothing_is_left_of_a_region() -> None:
    def used() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    for turn in range(60):
        residual(channels=8)(image())
        if turn == 20:
            gc.collect()
            before = used()
    assert used() - before < 30_000  # kilobytes


def _in_a_fork(region: Region, x: Tensor, found: multiprocessing.SimpleQueue[float]) -> None:
    found.put(float(region(x)[0].double().sum()))


def test_a_forked_process_makes_plans_of_its_own() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(
        1
    )  # GNU's OpenMP cannot start threads in a fork of a process that had some
    try:
        region, x = residual(), image()
        expected = float(region(x)[0].double().sum())
        context = multiprocessing.get_context("fork")
        queue: multiprocessing.SimpleQueue[float] = context.SimpleQueue()
        process = context.Process(target=_in_a_fork, args=(region, x, queue))
        process.start()
        process.join(60)
        assert process.exitcode == 0
        assert queue.get() == expected
    finally:
        torch.set_num_threads(before)


def test_the_operator_is_well_formed() -> None:
    region = residual()
    arguments = ([image()], region.constants, region.program)
    torch.library.opcheck(region_operator(), arguments)
    assert torch.equal(region_operator()(*arguments)[0], region(image())[0])


def test_what_the_operator_prepared_goes_with_the_constants() -> None:
    region = residual()
    constants = [each.clone() for each in region.constants]
    region_operator()([image()], constants, region.program)
    held = constants[0].__dict__["quantfx_regions"]
    assert copy.deepcopy(constants[0]).__dict__["quantfx_regions"] == {}
    assert pickle.loads(pickle.dumps(constants[0])).__dict__["quantfx_regions"] == {}
    assert list(held) == [region.program]


def test_a_refusal_of_onednn_names_the_step() -> None:
    region = residual()
    plan = region.plan((image(),))
    step = next(step for step in plan.program.steps if isinstance(step, Convolution))
    assert step.output is not None
    step.groups = 3  # of eight channels
    from quantfx.backends.direct.runtime.plan import Plan

    with refused("step-not-prepared", site=step.output.name):
        Plan(plan._store, plan.program, 1)
