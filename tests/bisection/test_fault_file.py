"""What is written of values reads back as the same values."""

from __future__ import annotations

import runpy
from pathlib import Path

import torch

from quantfx.bisection.fault_file import Ending, write_fault
from quantfx.bisection.graph_builder import GraphBuilder
from quantfx.bisection.shrink import shrink
from quantfx.bisection.slices import Whole
from quantfx.passes.errors import BisectError
from tests.refusals import refused

INFINITE, NAN = float("inf"), float("nan")
VALUES = {
    "few": torch.tensor([1.0, INFINITE, NAN]),
    "equal": torch.full((70,), -INFINITE),
    "many": torch.tensor([NAN] * 70),
    "turned": torch.full((70,), complex(INFINITE, -1.0)),
    "finite": torch.linspace(0, 1, 70),
    "mask": torch.arange(70) > 9,
}


def test_numbers_that_are_not_finite_or_not_real_read_back(tmp_path: Path) -> None:
    builder = GraphBuilder()
    nodes = [builder.argument(name, value) for name, value in VALUES.items()]
    called = [builder.call(f"sign_of_{node.name}", torch.abs, node) for node in nodes[:-1]]
    filled = builder.call(
        "filled", torch.ops.aten.masked_fill.Scalar, called[4], nodes[-1], -INFINITE
    )
    graph = builder.module(*called, filled)
    whole = Whole(graph, list(VALUES.values()))
    found = shrink(whole, lambda part, _: "it" * (len(part.graph.nodes) > 12), near=(), budget=2)
    assert found is not None
    assert set(found.random) == {"finite", "mask"}
    path = tmp_path / "fault.py"
    write_fault(path, found, Ending(("made = graph.inputs",)))
    made = runpy.run_path(str(path))["made"]
    for value, name in zip(made, VALUES, strict=True):
        if name not in found.random:
            torch.testing.assert_close(value, VALUES[name], rtol=0, atol=0, equal_nan=True)
    assert torch.load(path.with_suffix(".pt")).keys() == {"equal", "many", "turned"}


def test_an_ending_that_is_no_code_is_refused() -> None:
    with refused("no-text-form", BisectError, says="<function"):
        Ending(("check = <function check at 0x7f>",))
