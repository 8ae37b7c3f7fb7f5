"""``quantfx.reduce``: a fault in few operators, in a file that shows it in a process of its own."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

import quantfx
from quantfx import Pipeline, backends, reduce_model
from quantfx.backends.backend import Backend
from quantfx.bisect_model import make_subject
from quantfx.bisection.trials import Subject
from quantfx.checks import Check, close_to_float, runs
from quantfx.passes.errors import BisectError, ConfigError, PassError
from quantfx.passes.graph.editor import Editor
from quantfx.passes.inputs.example import ExampleInputs
from quantfx.passes.pipeline.base import Context
from quantfx.passes.pipeline.graph_pass import GraphPass
from quantfx.reduce_model import CheckFault, Reduction
from quantfx.tools.models.seeded import seeded
from tests import seeded_faults as faults
from tests.refusals import refused

ROOT = Path(__file__).parent.parent
Network = Callable[[], tuple[nn.Module, Tensor]]

# How each is seeded, by the code that a process of its own runs as well.
FAULTS: dict[str, tuple[Network, str, Check]] = {
    "a lost eps": (faults.conv_net, "lose_eps(patch)", close_to_float(20)),
    "swapped scales": (faults.conv_net, "swap_scales(patch, 'linear')", close_to_float(20)),
    "a wrong kernel": (faults.attention, "break_kernel(patch, 'linear_3')", close_to_float(35)),
    "a pass that raises": (faults.attention, "raise_for_site(patch, 'linear_7')", runs()),
}
# Runs files, each with its fault and without it; a process takes seconds to begin with.
RUN = """
import contextlib, io, json, runpy, sys
import pytest
from tests.seeded_faults import *

shown = []
for path, seed in json.loads(sys.argv[1]):
    for code in (seed, ""):
        out, status = io.StringIO(), None
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
            exec(code)
            try:
                runpy.run_path(path, run_name="__main__")
            except SystemExit as end:
                status = end.code
        shown.append((status, out.getvalue()))
print(json.dumps(shown))
"""


def run_files(*files: tuple[Path, str]) -> list[tuple[int, str]]:
    """Return exit status and output of each file, with the code that seeds its fault and without."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps([(str(path), seed) for path, seed in files])],
        check=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    return [(status, out) for status, out in json.loads(done.stdout.splitlines()[-1])]


def reduction(name: str, folder: Path) -> Reduction:
    network, seed, check = FAULTS[name]
    with pytest.MonkeyPatch.context() as patch:
        exec(f"faults.{seed}", {"faults": faults, "patch": patch})
        model, x = network()
        return quantfx.reduce(model, x, check=check, path=folder / f"{name.replace(' ', '_')}.py")


@pytest.fixture(scope="module")
def lost_eps(tmp_path_factory: pytest.TempPathFactory) -> Reduction:
    return reduction("a lost eps", tmp_path_factory.mktemp("reduced"))


def test_few_operators_are_left_and_the_file_shows_the_fault(
    lost_eps: Reduction, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process; in one of its own it takes seconds to begin with."""
    assert 1 <= len(lost_eps.operators) <= 2
    for expected, says in ((1, lost_eps.message), (0, "the fault is gone\n")):
        with pytest.MonkeyPatch.context() as patch:
            if expected:
                faults.lose_eps(patch)
            with pytest.raises(SystemExit) as ended:
                runpy.run_path(str(lost_eps.path), run_name="__main__")
        assert ended.value.code == expected
        assert says in capsys.readouterr().out


@pytest.mark.sweep
def test_each_file_shows_its_fault_in_a_process_of_its_own(
    lost_eps: Reduction, tmp_path: Path
) -> None:
    made: list[tuple[Reduction, str]] = []
    for name in FAULTS:
        reduced = lost_eps if name == "a lost eps" else reduction(name, tmp_path)
        assert 1 <= len(reduced.operators) <= 2
        made.append((reduced, FAULTS[name][1]))
    shown = run_files(*((each.path, seed) for each, seed in made))
    for (each, _), with_fault, without in zip(made, shown[::2], shown[1::2], strict=True):
        assert with_fault[0] == 1
        assert each.message in with_fault[1]
        assert without == (0, "the fault is gone\n")


@pytest.mark.sweep
def test_a_file_by_itself_exits_with_the_status(tmp_path: Path) -> None:
    """A check that float networks of int8 weights cannot meet needs no seeded fault."""
    model, x = faults.conv_net()
    made = quantfx.reduce(model, x, check=close_to_float(60), path=tmp_path / "fault.py")
    assert len(made.operators) == 1
    done = subprocess.run(
        [sys.executable, str(made.path)],
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert (done.returncode, done.stdout) == (1, f"{made.message}\n")


@pytest.mark.sweep
def test_what_a_bisection_found_is_where_it_looks_first(
    lost_eps: Reduction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults.lose_eps(monkeypatch)
    model, x = faults.conv_net()
    check = close_to_float(20)
    found = quantfx.bisect(model, x, check=check, batches=[x])
    near = quantfx.reduce(model, x, check=check, path=tmp_path / "near.py", near=found)
    assert near.operators == lost_eps.operators == ("conv2d_2", "batch_norm_2")
    assert near.evaluations < lost_eps.evaluations


def test_tensors_that_the_fault_depends_on_are_saved_beside(
    tmp_path: Path,
) -> None:
    model, x = faults.conv_net()
    made = quantfx.reduce(model, x, check=ExactWeight(), path=tmp_path / "fault.py")
    assert made.path.with_suffix(".pt").exists()
    assert 'saved["body_0_weight"]' in made.path.read_text().replace("'", '"')
    assert torch.load(made.path.with_suffix(".pt"))["body_0_weight"].shape == (8, 8, 3, 3)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(made.path), run_name="__main__")
    assert ended.value.code == 1


@dataclass(frozen=True)
class ExactWeight(Check):
    """Fails where a graph holds one certain weight of the convolutional network."""

    def holds(
        self,
        result: quantfx.Result,
        reference: Callable[..., object],
        *args: object,
        **kwargs: object,
    ) -> bool:
        model, _ = faults.conv_net()
        wanted = float(model.get_parameter("body.0.weight").sum())
        assert isinstance(reference, nn.Module)
        return all(abs(float(each.sum()) - wanted) > 1e-6 for each in held(reference))


def held(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


@dataclass(frozen=True)
class Refuse(GraphPass):
    """Raises for a graph that has a certain node."""

    name: ClassVar[str] = "refuse"

    def rewrite(self, editor: Editor, context: Context) -> int:
        if calls_of_linear_3(editor):
            raise ValueError("a fault")
        return 0


@dataclass(frozen=True)
class Misplace(GraphPass):
    """Puts a certain node in front of what it reads."""

    name: ClassVar[str] = "misplace"

    def rewrite(self, editor: Editor, context: Context) -> int:
        for node in calls_of_linear_3(editor):
            next(iter(editor.graph.nodes)).prepend(node)
        return len(calls_of_linear_3(editor))


def calls_of_linear_3(editor: Editor) -> list[Node]:
    nodes = list(editor.graph.nodes)
    return [node for node in nodes if (node.op, node.name) == ("call_function", "linear_3")]


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Refuse(), "refuse failed: a fault"),
        (Misplace(), "misplace failed: the pass left an invalid graph"),
    ],
    ids=["raises", "invalid"],
)
def test_the_error_of_a_pipeline_offers_the_file(
    tmp_path: Path, fault: GraphPass, says: str
) -> None:
    model, x = faults.attention()
    graph = quantfx.capture(model, x)
    backend = backends.get("x86")
    pipeline = backend.prepare_pipeline.upto("fold-scales") + Pipeline((fault,))
    with pytest.raises(PassError) as caught:
        pipeline.run(graph, backend.context)
    assert "quantfx.reduce(error" in "".join(caught.value.__notes__)
    made = quantfx.reduce(caught.value, path=tmp_path / "fault.py")
    assert made.operators == ("linear_3",)
    assert f"Pipeline.parse(PIPELINE, passes=[{type(fault).__name__}])" in made.path.read_text()
    assert f"raises PassError: {says}" in made.message
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(made.path), run_name="__main__")
    assert ended.value.code == 1


@pytest.mark.sweep
def test_the_error_of_a_pass_of_ours_does_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults.raise_in_pass(monkeypatch)
    model, x = faults.attention()
    with pytest.raises(PassError) as caught:
        quantfx.quantize(model, x, calibration=[x])
    made = quantfx.reduce(caught.value, path=tmp_path / "fault.py")
    assert len(made.operators) == 1
    for expected in (1, 0):
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(made.path), run_name="__main__")
        assert ended.value.code == expected
        monkeypatch.undo()


def test_nothing_wrong_is_told(tmp_path: Path) -> None:
    model, x = faults.conv_net()
    with refused("nothing-wrong", BisectError):
        quantfx.reduce(model, x, path=tmp_path / "fault.py")
    assert not (tmp_path / "fault.py").exists()


def test_a_misspelt_node_is_told_before_the_search(tmp_path: Path) -> None:
    model, x = faults.conv_net()
    with refused("unknown-name", BisectError, site="conv2d_22", says="did you mean .conv2d_2."):
        quantfx.reduce(model, x, check=lambda _: False, near="conv2d_22", path=tmp_path / "a.py")


def test_a_check_that_no_file_can_import_is_refused(tmp_path: Path) -> None:
    model, x = faults.conv_net()
    with refused("no-text-form", BisectError):
        quantfx.reduce(model, x, check=lambda _: False, path=tmp_path / "fault.py")


def test_a_check_that_is_no_function_and_no_check_is_refused(tmp_path: Path) -> None:
    model, x = faults.conv_net()
    for check in (partial(wrong, 1), Holds(at_least=lambda: 0)):
        with refused("no-text-form", BisectError):
            quantfx.reduce(model, x, check=check, path=tmp_path / "fault.py")
        assert not list(tmp_path.iterdir())


def wrong(number: int, result: quantfx.Result) -> bool:
    return number == 0


@dataclass(frozen=True)
class Holds(Check):
    """Fails, and has a field that no code makes."""

    at_least: Callable[[], int] = int

    def holds(
        self, result: quantfx.Result, reference: Callable[..., object], *args: Any, **kwargs: Any
    ) -> bool:
        return False


def test_a_backend_that_no_file_can_make_is_refused_before_the_search(tmp_path: Path) -> None:
    model, x = faults.conv_net()
    config = quantfx.Config().where(lambda node: node.name == "linear", "float")
    with refused("no-text-form", BisectError):
        quantfx.reduce(
            model, x, check=close_to_float(60), config=config, path=tmp_path / "fault.py"
        )
    assert not list(tmp_path.iterdir())


def test_rules_of_a_config_need_select_nothing_in_a_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = faults.conv_net()
    config = quantfx.Config().call("linear", "float")
    faults.raise_for_site(monkeypatch, "conv2d_1")
    quantized: list[GraphModule] = []

    def noted(backend: Backend, graph: GraphModule, *others: Any, **options: Any) -> Subject:
        quantized.append(graph)
        return make_subject(backend, graph, *others, **options)

    monkeypatch.setattr(reduce_model, "make_subject", noted)
    made = quantfx.reduce(model, x, check=runs(), config=config, path=tmp_path / "check.py")
    assert len(made.operators) == 1
    assert quantized.count(quantized[0]) == 1  # the whole; parts are other graphs
    faults.raise_in_pass(monkeypatch)
    with pytest.raises(PassError) as caught:
        quantfx.quantize(model, x, calibration=[x], config=config)
    made = quantfx.reduce(caught.value, path=tmp_path / "error.py")
    assert len(made.operators) == 1
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(made.path), run_name="__main__")
    assert ended.value.code == 1


class Counts(nn.Module):
    """Writes to its first input, and to a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        self.get_buffer("count").add_(1)
        x.add_(1)
        out: Tensor = self.fc(x) * y
        return out


def test_a_verdict_writes_to_nothing_and_takes_inputs_by_place_and_by_name() -> None:
    x, y = torch.ones(2, 4), torch.ones(2, 4)
    graph = quantfx.capture(seeded(Counts), x.clone(), example_kwargs={"y": y})
    before = [each.clone() for each in held(graph)]
    fault = CheckFault(backends.get("x86"), close_to_float(20), "")
    for _ in range(2):
        verdict = fault.verdict(graph, ExampleInputs((x,), {"y": y}))
        assert verdict.good, verdict
    assert torch.equal(x, torch.ones(2, 4))
    assert all(map(torch.equal, before, held(graph)))


def test_a_rule_that_selects_nothing_is_a_fault_itself(tmp_path: Path) -> None:
    model, x = faults.conv_net()
    config = quantfx.Config().call("lin", "float")
    made = quantfx.reduce(model, x, config=config, path=tmp_path / "fault.py")
    assert "raises ConfigError" in made.message
    assert len(made.operators) == 1


def test_a_user_who_misspells_a_config_is_not_offered_the_file() -> None:
    model, x = faults.conv_net()
    with pytest.raises(ConfigError) as caught:
        quantfx.quantize(model, x, calibration=[x], config=quantfx.Config().call("lin", "float"))
    assert "quantfx.reduce" not in "".join(getattr(caught.value, "__notes__", ()))


def test_an_error_of_which_nothing_is_kept_is_refused(tmp_path: Path) -> None:
    with refused("not-captured", BisectError):
        quantfx.reduce(PassError("lost", rule="pass-failed"), path=tmp_path / "fault.py")
